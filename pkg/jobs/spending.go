package jobs

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// spendings are what tenants have spent this month, as one sweep finds out when it first needs to know.
type spendings struct {
	held map[string]*Pause // by tenant, why its jobs are held; nil = they are not
	open map[string][]Job  // by tenant, that the sweep visits and were made this month; nil = not listed yet
}

// closedSpending is what a tenant's jobs of a month have cost that the sweep visits no more.
type closedSpending struct {
	month time.Time
	at    time.Time // when it was summed up
	cost  Cost
}

// closedFresh is how old such a sum may be: it takes a list of all of a month's jobs. A job that was closed since is counted a
// little later, and of one that failed what its last fold knew.
const closedFresh = 15 * time.Minute

// heedSpending pauses an open job whose tenant has spent what it may this month.
func (a *Aggregate) heedSpending(ctx context.Context, j *Job, s *spendings) (held bool, err error) {
	if !j.mayBeHeldBy(LimitTenantCost) {
		return false, nil
	}
	why, known := s.held[j.Tenant]
	if !known {
		if why, err = a.overspent(ctx, j.Tenant, s); err != nil {
			return false, err
		}
		s.held[j.Tenant] = why
	}
	if why == nil {
		return false, nil
	}
	j.Pause = why
	return true, a.saveJob(ctx, j)
}

func (a *Aggregate) overspent(ctx context.Context, tenant string, s *spendings) (*Pause, error) {
	l, err := LimitsOf(ctx, a.Registry, tenant)
	if err != nil || l.MaxCost == 0 {
		return nil, err
	}
	now := a.Now().UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	if s.open == nil {
		s.open = map[string][]Job{}
		for j, err := range a.Ledger.Jobs(ctx, JobQuery{Open: true}) {
			if err != nil {
				return nil, fmt.Errorf("list the open jobs: %w", err)
			}
			if !j.Created.Before(month) {
				s.open[j.Tenant] = append(s.open[j.Tenant], j)
			}
		}
	}
	open := s.open[tenant]
	spent, err := a.closedCost(ctx, tenant, month, open)
	if err != nil {
		return nil, err
	}
	for _, j := range open {
		t := j.Totals // of one that has ended they are whole, unless it failed
		if !j.Phase.Ended() || j.Phase == PhaseFailed {
			if t, err = Folded(ctx, a.Ledger, &j); err != nil {
				return nil, err
			}
		}
		spent += t.Cost
	}
	if spent < l.MaxCost {
		return nil, nil
	}
	return &Pause{Reason: PauseSpend, Limit: LimitTenantCost, At: now, Message: fmt.Sprintf(
		"tenant %s has spent $%.2f this month, and may spend $%.2f; raise that, and resume the job", tenant, spent.USD(), l.MaxCost.USD())}, nil
}

// closedCost sums up the tenant's closed jobs of the month, now and then; and at once, if one of the open ones may have been
// closed when that was last done, and would count twice.
func (a *Aggregate) closedCost(ctx context.Context, tenant string, month time.Time, open []Job) (Cost, error) {
	a.mu.Lock()
	sum := a.closed[tenant]
	a.mu.Unlock()
	now := a.Now()
	reopened := slices.ContainsFunc(open, func(j Job) bool { return j.Created.Before(sum.at) && j.Entered[PhaseInProgress].After(sum.at) })
	if sum.month.Equal(month) && now.Sub(sum.at) < closedFresh && !reopened {
		return sum.cost, nil
	}
	sum = closedSpending{month: month, at: now}
	for j, err := range a.Ledger.Jobs(ctx, JobQuery{Tenant: tenant}) { // newest first
		if err != nil {
			return 0, fmt.Errorf("list the jobs of tenant %s: %w", tenant, err)
		}
		if j.Created.Before(month) {
			break
		}
		if j.Closed && !slices.ContainsFunc(open, func(o Job) bool { return o.ID == j.ID }) { // else it was closed since these were listed
			sum.cost += j.Totals.Cost
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.closed) >= maxClosedSums {
		clear(a.closed)
	}
	a.closed[tenant] = sum
	return sum.cost, nil
}

const maxClosedSums = 10_000 // tenants with a limit

package jobs

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What holds a job back before all of it is paid for: too many failures, and what it may cost. Somebody who resumes such a
// job has seen why, and it is not paused for that limit again; the others hold.

// leastOutcomes is how many outcomes it takes to judge by a job's share of failures.
const leastOutcomes = 100

// tooManyFail tells whether more of its outcomes are failures than the job tolerates.
func (j *Job) tooManyFail(t Totals) bool {
	outcomes := t.Answered + t.Failed
	return j.Tolerated != nil && j.mayBeHeldBy(LimitFailures) &&
		outcomes >= leastOutcomes && outcomes < t.Items && 100*float64(t.Failed) > *j.Tolerated*float64(outcomes)
}

// tooDear tells whether the job has cost what it may.
func (j *Job) tooDear(t Totals) bool {
	return j.MaxCost > 0 && j.mayBeHeldBy(LimitCost) && t.Cost >= j.MaxCost && t.Answered+t.Failed < t.Items
}

// limits are those that the job had come to. A pause of before they were noted may be of either cost.
func (p *Pause) limits() []Limit {
	switch {
	case p.Limit != "":
		return []Limit{p.Limit}
	case p.Reason == PauseTolerated:
		return []Limit{LimitFailures}
	case p.Reason == PauseSpend:
		return []Limit{LimitCost, LimitTenantCost}
	default:
		return nil
	}
}

func (j *Job) mayBeHeldBy(l Limit) bool {
	return j.Pause == nil && !j.Stopped() && !slices.Contains(j.Waived, l)
}

// heedLimits pauses a job that has come to one of its limits. A split of it was folded with news.
func (a *Aggregate) heedLimits(ctx context.Context, j *Job) error {
	if (j.Tolerated == nil || !j.mayBeHeldBy(LimitFailures)) && (j.MaxCost == 0 || !j.mayBeHeldBy(LimitCost)) {
		return nil
	}
	all, err := survey(j, a.Ledger.Splits(ctx, j.ID))
	if err != nil {
		return fmt.Errorf("read its splits: %w", err)
	}
	return untilSaved(func() error {
		j, err := a.Ledger.Job(ctx, j.ID)
		if err != nil {
			return err
		}
		switch t := all.Totals; {
		case j.tooManyFail(t):
			j.Pause = &Pause{Reason: PauseTolerated, Limit: LimitFailures, At: a.Now(), Message: fmt.Sprintf(
				"%d of %d outcomes are failures, and the job tolerates %g %% of them; resume it, or cancel it", t.Failed, t.Answered+t.Failed, *j.Tolerated)}
		case j.tooDear(t):
			j.Pause = &Pause{Reason: PauseSpend, Limit: LimitCost, At: a.Now(), Message: fmt.Sprintf(
				"it has cost $%.2f, and may cost $%.2f; resume it, and it goes on without that limit, or cancel it", t.Cost.USD(), j.MaxCost.USD())}
		default:
			return nil
		}
		return a.saveJob(ctx, &j)
	})
}

// KindLimits entries hold what a tenant may: owner = limitsOwner, id = the tenant.
const KindLimits Kind = "limits"

const limitsOwner = "all"

// Limits are what a tenant may; zero = as much as it likes.
type Limits struct {
	V         int
	Tenant    string `json:"-"`
	MaxCost   Cost   `json:",omitempty"` // of the jobs that it has made in a calendar month (UTC)
	OpenItems int64  `json:",omitempty"` // without an outcome, of all its jobs, for another job to be taken
}

// LimitsOf is what a tenant may.
func LimitsOf(ctx context.Context, r Registry, tenant string) (Limits, error) {
	l := Limits{Tenant: tenant}
	e, err := r.Entry(ctx, KindLimits, limitsOwner, tenant)
	if err == nil {
		err = decodeEntry(e, &l)
	}
	if errors.Is(err, ErrNotFound) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("read the limits of tenant %s: %w", tenant, err)
	}
	l.Tenant = tenant
	return l, nil
}

// SetLimits says what a tenant may from now on.
func (i *Inspector) SetLimits(ctx context.Context, l Limits, by string) error {
	if !PlainTenant(l.Tenant) || l.MaxCost < 0 || l.OpenItems < 0 {
		return Errorf(CodeInvalid, "set limits: a tenant has a plain name, and limits from 0")
	}
	l.V = SchemaVersion
	err := untilSaved(func() error {
		e, err := i.ports.Registry.Entry(ctx, KindLimits, limitsOwner, l.Tenant)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		e.Kind, e.Owner, e.ID, e.Body = KindLimits, limitsOwner, l.Tenant, encodeMessage(l)
		return i.ports.Registry.SaveEntry(ctx, &e)
	})
	if err == nil {
		why := fmt.Sprintf("at most $%.2f a month and %d open items; 0 = any", l.MaxCost.USD(), l.OpenItems)
		err = Audit(ctx, i.ports, AuditRecord{By: by, What: "tenant.limits", Tenant: l.Tenant, Why: why})
	}
	if err != nil {
		return fmt.Errorf("set the limits of tenant %s: %w", l.Tenant, err)
	}
	return nil
}

// Admit refuses another job of a tenant that has too many open items (CodeLimit).
func Admit(ctx context.Context, p Ports, tenant string) error {
	l, err := LimitsOf(ctx, p.Registry, tenant)
	if err != nil || l.OpenItems == 0 {
		return err
	}
	var open int64
	for j, err := range p.Ledger.Jobs(ctx, JobQuery{Open: true}) {
		switch {
		case err != nil:
			return fmt.Errorf("list the open jobs: %w", err)
		case j.Tenant != tenant || j.Phase.Ended():
		case j.Checked == nil:
			return Errorf(CodeLimit, "tenant %s has a job whose items are not counted yet, and may have %d open ones", tenant, l.OpenItems).
				WithHint("wait a moment, until job %s is validated", j.ID)
		default:
			open += j.openItems()
		}
	}
	if open >= l.OpenItems {
		return Errorf(CodeLimit, "tenant %s has %d open items, and may have %d before another job is taken", tenant, open, l.OpenItems).
			WithHint("wait until some of its jobs have ended")
	}
	return nil
}

// openItems is how many of the job's items are known to have no outcome, as of its last fold.
func (j *Job) openItems() int64 {
	t := j.Totals
	if j.Checked != nil {
		t.Items = j.Checked.Items
	}
	return max(0, t.Items-t.Answered-t.Failed)
}

package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Weather is how the upstream of a run behaves.
type Weather struct {
	Name    string
	Latency time.Duration // of most calls
	Slow    int           // of 10,000 calls: a minute more
	Flaky   int           // of 10,000 calls: 500
	Limit   int           // calls in flight above which it answers 429; 0 = none
	Sick    map[int]bool  // items that it always answers with 500
	Refused map[int]bool  // items that it always answers with 400
	Killers map[int]bool  // items whose call ends the process
	Outages []Downtime    // times when it fails everybody …
	Down    string        // … who asks for this model; "" = all
	Deny    time.Duration // from the start: 401 for all
}

// Downtime is a time when every call fails alike.
type Downtime struct {
	From, To time.Duration
	Fault    jobs.Fault
}

// upstream answers by the weather.
type upstream struct {
	w       *World
	weather Weather

	mu       sync.Mutex
	inFlight int
	turns    map[string]int
	calls    map[int]int // by item; guarded by the world's lock, as what follows
	answers  map[int]int
	got      map[int]*actor // who got the last answer of an item
}

func (u *upstream) Call(ctx context.Context, r jobs.Request) (jobs.Answer, error) {
	caller := actorOf(ctx)
	var body struct{ N int }
	if err := json.Unmarshal(r.Body, &body); err != nil {
		return jobs.Answer{}, err
	}
	u.mu.Lock()
	turn := fmt.Sprintf("%s:item%d", caller.name, body.N)
	u.turns[turn]++
	turn = fmt.Sprintf("%s.%d", turn, u.turns[turn])
	u.inFlight++
	crowded := u.weather.Limit > 0 && u.inFlight > u.weather.Limit
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.inFlight--
		u.mu.Unlock()
	}()

	h := u.w.hash(turn)
	took := u.weather.Latency/2 + time.Duration(h%uint64(u.weather.Latency))
	if chance(h>>8, u.weather.Slow) {
		took += time.Minute
	}
	u.w.sleep(time.Duration(h>>20) % (20 * time.Millisecond)) // calls that are started together start one after the other
	if caller.proc.isDead() {
		return jobs.Answer{}, errDead
	}
	u.w.called(caller, body.N)
	u.w.sleep(took)
	if caller.proc.isDead() {
		return jobs.Answer{}, errDead
	}
	if u.weather.Killers[body.N] {
		u.w.logf("%s: item %d kills", turn, body.N)
		u.w.kill(caller)
		return jobs.Answer{}, errDead
	}
	if f := u.fault(r.Model, body.N, h, crowded); f != nil {
		u.w.logf("%s: fails with %d", turn, f.Status)
		return jobs.Answer{}, f
	}
	u.w.logf("%s: answered", turn)
	u.answered(caller, body.N)
	return jobs.Answer{Status: 200, Body: fmt.Appendf(nil, `{"answer":%d}`, body.N), Usage: jobs.Usage{Input: 1, Total: 1}}, nil
}

func (u *upstream) answered(a *actor, item int) {
	u.w.world.Lock()
	defer u.w.world.Unlock()
	u.got[item] = a
	if u.answers[item]++; u.answers[item] > 1 {
		u.w.saw(AnsweredTwice)
	}
}

func (u *upstream) fault(model string, item int, h uint64, crowded bool) *jobs.Fault {
	u.mu.Lock()
	defer u.mu.Unlock()
	since := time.Since(u.w.began)
	for _, o := range u.weather.Outages {
		if since >= o.From && since < o.To && (u.weather.Down == "" || u.weather.Down == model) {
			f := o.Fault
			return &f
		}
	}
	status := func(code int) *jobs.Fault {
		return &jobs.Fault{Cause: jobs.CauseStatus, Status: code, Code: fmt.Sprintf("http_%d", code), Message: "no", IsObject: code != 404}
	}
	switch {
	case since < u.weather.Deny:
		return status(401)
	case u.weather.Refused[item]:
		return status(400)
	case u.weather.Sick[item]:
		return status(500)
	case crowded:
		f := status(429)
		if h%3 == 0 {
			f.RetryAfter = time.Duration(1+h%20) * time.Second
		}
		return f
	case chance(h>>24, u.weather.Flaky):
		return status(500)
	default:
		return nil
	}
}

// heal makes sick items well.
func (u *upstream) heal() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.weather.Sick = nil
}

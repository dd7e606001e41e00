package sim

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// fleet is the processes that handle messages, and what delivers to them.
type fleet struct {
	w        *World
	size     int
	lambda   bool // handlers have a deadline
	ledger   *ledger
	registry *registry
	queue    *queue
	files    *files
	upstream *upstream

	mu      sync.Mutex
	started int
	members []*member
	running sync.WaitGroup
	busy    int
	deliver int
}

// member is a process with its handlers.
type member struct {
	*process
	handlers map[jobs.QueueName]jobs.Handler
	worker   *jobs.Worker
	ctx      context.Context
	busy     int
}

const (
	hideFor    = 3 * time.Minute
	lambdaTime = 4 * time.Minute
	mostBusy   = 5 // handler calls of one process at once
)

func (f *fleet) ports(p *process) jobs.Ports {
	ids := 0
	var mu sync.Mutex
	next := func() int {
		mu.Lock()
		defer mu.Unlock()
		ids++
		return ids
	}
	return jobs.Ports{
		Ledger: f.ledger, Registry: f.registry, Queue: f.queue, Files: f.files,
		Now: time.Now, Process: p.name,
		NewID: func() string { return fmt.Sprint(next()) },
		Jitter: func(d time.Duration) time.Duration {
			return d/2 + time.Duration(f.w.hash(p.name, "jitter", next())%uint64(d/2+1))
		},
		Log: slog.New(slog.DiscardHandler),
	}
}

// start starts a process.
func (f *fleet) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.started++
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{name: fmt.Sprintf("p%d", f.started), cancel: cancel}
	ports := f.ports(p)
	m := &member{process: p, ctx: ctx}
	m.worker = jobs.NewWorker(ports, jobs.WorkerOptions{
		Route:       func(string) (string, jobs.Upstream) { return "up", f.upstream },
		Concurrency: 6, CallTimeout: 30 * time.Second, CheckpointAge: 20 * time.Second,
	})
	m.handlers = map[jobs.QueueName]jobs.Handler{
		jobs.QueueIngest:    jobs.NewIngest(ports, jobs.IngestOptions{}),
		jobs.QueueWork:      m.worker,
		jobs.QueueAggregate: jobs.NewAggregate(ports, jobs.AggregateOptions{PieceBytes: 400}),
	}
	f.members = append(f.members, m)
	f.w.logf("process %s starts", p.name)
}

// run delivers messages until over says so.
func (f *fleet) run(over func() bool) {
	for range f.size {
		f.start()
	}
	lastTick := time.Now()
	for round := 0; !over(); round++ {
		f.bury()
		if time.Since(lastTick) >= time.Minute {
			lastTick = time.Now()
			f.tick()
		}
		f.give(round)
		f.w.sleep(f.pause(round, lastTick))
	}
	f.mu.Lock()
	for _, m := range f.members {
		m.die()
	}
	f.mu.Unlock()
	f.running.Wait()
}

// pause is how long the fleet waits before it looks again: a moment while anything may happen.
func (f *fleet) pause(round int, lastTick time.Time) time.Duration {
	f.mu.Lock()
	busy := f.busy
	f.mu.Unlock()
	if busy > 0 {
		return 20*time.Millisecond + time.Duration(f.w.hash("round", round)%uint64(200*time.Millisecond))
	}
	d := time.Until(lastTick.Add(time.Minute))
	f.w.world.Lock()
	at, ok := f.queue.next()
	f.w.world.Unlock()
	if ok {
		d = min(d, time.Until(at))
	}
	return max(d, 20*time.Millisecond)
}

// tick makes the sweep run, as a scheduler would.
func (f *fleet) tick() {
	f.w.world.Lock()
	defer f.w.world.Unlock()
	f.queue.add(jobs.QueueAggregate, jobs.TickBody(), 0)
}

// bury takes dead processes out, and starts others some time later.
func (f *fleet) bury() {
	f.mu.Lock()
	var alive []*member
	dead := 0
	for _, m := range f.members {
		if m.isDead() {
			dead++
			continue
		}
		alive = append(alive, m)
	}
	f.members = alive
	n := f.started
	f.mu.Unlock()
	for i := range dead {
		f.w.sleep(time.Second + time.Duration(f.w.hash("restart", n, i)%uint64(5*time.Second)))
		f.start()
	}
}

// give delivers one visible message to a process that has room.
func (f *fleet) give(round int) {
	h := f.w.hash("give", round)
	f.mu.Lock()
	defer f.mu.Unlock()
	var free []*member
	for _, m := range f.members {
		if m.busy < mostBusy && !m.isDead() {
			free = append(free, m)
		}
	}
	if len(free) == 0 {
		return
	}
	m := free[(h>>32)%uint64(len(free))]
	hide := hideFor
	if chance(h>>8, f.w.Odds.Redeliver) {
		hide = time.Duration(h % uint64(30*time.Second))
		f.w.saw(Redelivery)
	}
	f.w.world.Lock()
	d := f.queue.take(h, hide)
	f.w.world.Unlock()
	if d == nil {
		return
	}
	f.deliver++
	a := &actor{name: fmt.Sprintf("%s.%s%d", m.name, d.Queue[:1], f.deliver), proc: m.process}
	m.busy++
	f.busy++
	f.w.logf("%s takes %s (%d): %s", a.name, d.ID, d.Receives, d.Body)
	f.running.Go(func() { f.handle(m, a, *d) })
}

func (f *fleet) handle(m *member, a *actor, d jobs.Message) {
	defer func() {
		f.mu.Lock()
		m.busy--
		f.busy--
		f.mu.Unlock()
	}()
	ctx := withActor(m.ctx, a)
	if f.lambda {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lambdaTime)
		defer cancel()
	}
	failures := m.handlers[d.Queue].Handle(ctx, []jobs.Message{d})
	f.w.sleep(time.Millisecond)
	if m.isDead() {
		return
	}
	if len(failures) > 0 {
		f.w.logf("%s: %s comes again: %v", a.name, d.ID, failures[0].Err)
		return
	}
	if chance(f.w.hash(a.name, "ack"), f.w.Odds.LoseAck) {
		f.w.logf("%s: the ack of %s is lost", a.name, d.ID)
		return
	}
	f.w.logf("%s: %s is done", a.name, d.ID)
	f.w.world.Lock()
	defer f.w.world.Unlock()
	f.queue.ack(d)
}

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
	ledger   *ledger
	registry *registry
	queue    *queue
	files    *files
	upstream *upstream
	receiver *receiver

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
	mostBatch  = 4 // messages of one handler call
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
		Now: time.Now, Process: p.name, Sole: f.w.plan.Sole, Yield: f.w.yield,
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
		jobs.QueueAggregate: jobs.NewAggregate(ports, jobs.AggregateOptions{PieceBytes: f.w.plan.PieceBytes, Webhooks: f.w.plan.Hook}),
		jobs.QueueNotify:    jobs.NewNotify(ports, f.receiver),
	}
	f.members = append(f.members, m)
	f.w.logf("process %s starts", p.name)
}

// run delivers messages until over says so.
func (f *fleet) run(over func() bool) {
	for range f.w.plan.Processes {
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

// give delivers a visible message, or several of a queue, to a process that has room.
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
	if chance(h>>8, f.w.plan.Odds.Redeliver) {
		hide = time.Duration(h % uint64(30*time.Second))
		f.w.saw(Redelivery)
	}
	batch := f.take(h, hide)
	if len(batch) == 0 {
		return
	}
	f.deliver++
	a := &actor{name: fmt.Sprintf("%s.%s%d", m.name, batch[0].Queue[:1], f.deliver), proc: m.process}
	m.busy++
	f.busy++
	f.running.Go(func() { f.handle(m, a, batch) })
}

// take takes one message; of a Lambda function's queue, but for the work queue, whose messages are handled side by side,
// perhaps several.
func (f *fleet) take(h uint64, hide time.Duration) []jobs.Message {
	f.w.world.Lock()
	defer f.w.world.Unlock()
	most := 1
	if f.w.plan.Lambda {
		most += int(h>>48) % mostBatch
	}
	var batch []jobs.Message
	for len(batch) < most {
		of := jobs.QueueName("")
		if len(batch) > 0 {
			of = batch[0].Queue
		}
		d := f.queue.take(h, hide, of)
		if d == nil {
			break
		}
		f.w.delivered(d)
		batch = append(batch, *d)
		if d.Queue == jobs.QueueWork {
			break
		}
	}
	if len(batch) > 1 {
		f.w.saw(Batch)
	}
	return batch
}

func (f *fleet) handle(m *member, a *actor, batch []jobs.Message) {
	defer func() {
		f.mu.Lock()
		m.busy--
		f.busy--
		f.mu.Unlock()
	}()
	for _, d := range batch {
		f.w.logf("%s takes %s (%d): %s", a.name, d.ID, d.Receives, d.Body)
	}
	ctx := withActor(m.ctx, a)
	if f.w.plan.Lambda {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lambdaTime)
		defer cancel()
	}
	failures := m.handlers[batch[0].Queue].Handle(ctx, batch)
	f.w.sleep(time.Millisecond)
	f.w.world.Lock()
	a.ended = true
	f.w.world.Unlock()
	if m.isDead() {
		return
	}
	for _, d := range batch {
		f.settle(a, d, failures)
	}
}

// settle acknowledges a message, unless it is to come again.
func (f *fleet) settle(a *actor, d jobs.Message, failures []jobs.Failure) {
	for _, failed := range failures {
		if failed.ID == d.ID {
			f.w.logf("%s: %s comes again: %v", a.name, d.ID, failed.Err)
			return
		}
	}
	if chance(f.w.hash(a.name, d.ID, "ack"), f.w.plan.Odds.LoseAck) {
		f.w.logf("%s: the ack of %s is lost", a.name, d.ID)
		return
	}
	f.w.logf("%s: %s is done", a.name, d.ID)
	f.w.world.Lock()
	defer f.w.world.Unlock()
	f.queue.ack(d)
}

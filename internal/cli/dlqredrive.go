package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

// redriving is a redrive as somebody asked for it.
type redriving struct {
	f *clientFlags
	s selection

	max, canary int64
	rate        float64
	canaryWait  time.Duration
	queue       string
	stop, yes   bool
}

func newDLQRedrive(f *clientFlags) *cobra.Command {
	r := redriving{f: f}
	cmd := &cobra.Command{
		Use: "redrive", Short: "Bring dead chunks back to work, by their error",
		Long: `Brings dead chunks back: those of a job, of a tenant, with an error, of an age, or all. Without --yes it only counts what
would move. Items that were answered are not asked again. The jobs open again, with a new window if theirs has passed, and
end with new files. What a job takes no more stays where it is, and is counted as refused.

With --canary N the first N chunks go alone, and the rest only if all of these are answered; else the command ends with exit
code 3, and nothing more is moved.

With --queue, all messages in the dead letters of a queue are moved back into it by the transport itself, whatever they are,
at --rate messages a second or at its own pace. --stop ends such a move; what was moved stays moved.`,
		Example: `  fanout dlq redrive --code upstream_error                 # counts
  fanout dlq redrive --code upstream_error --canary 2 --rate 5 --yes
  fanout dlq redrive --queue ingest --yes`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			switch {
			case r.max < 0 || r.canary < 0 || r.rate < 0:
				return jobs.Errorf(jobs.CodeInvalid, "--max, --canary and --rate must not be negative")
			case r.queue != "" && (r.s != selection{} || r.max > 0 || r.canary > 0):
				return jobs.Errorf(jobs.CodeInvalid, "--queue moves all there is: it goes with --rate, --stop and --yes only")
			case r.queue != "" && cmd.Flags().Changed("rate") && (r.rate < 1 || r.rate != math.Trunc(r.rate)):
				return usageError(cmd, "--rate of a whole queue is a whole number from 1, not %g; without it the queue's own pace is taken", r.rate)
			case r.canary > batchapi.MaxFollowed:
				return usageError(cmd, "--canary takes at most %d chunks, as many as can be followed, not %d", batchapi.MaxFollowed, r.canary)
			case r.stop && r.queue == "":
				return jobs.Errorf(jobs.CodeInvalid, "--stop ends the move of a queue: name it with --queue")
			case r.queue != "":
				return r.moveQueue(cmd, c)
			default:
				return r.run(cmd, c)
			}
		},
	}
	r.s.add(cmd)
	cmd.Flags().Int64Var(&r.max, "max", 0, "move at most so many chunks")
	cmd.Flags().Float64Var(&r.rate, "rate", 0, "move so many a second (default as fast as it goes)")
	cmd.Flags().Int64Var(&r.canary, "canary", 0, "move so many chunks first, and the rest only if all of them are answered")
	cmd.Flags().DurationVar(&r.canaryWait, "canary-wait", 30*time.Minute, "how long to wait for these")
	cmd.Flags().StringVar(&r.queue, "queue", "", "move all letters of a `QUEUE`, as they are")
	cmd.Flags().BoolVar(&r.stop, "stop", false, "end the move of a queue")
	cmd.Flags().BoolVar(&r.yes, "yes", false, "do it")
	cmd.Flags().Bool("dry-run", true, "count only, which is the default")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "yes")
	return cmd
}

func (r *redriving) run(cmd *cobra.Command, c *batchapi.Client) error {
	sel, err := r.s.wire()
	if err != nil {
		return err
	}
	sel.Max = r.max
	if !r.yes {
		would := newRedrove(true)
		if err := r.move(cmd, c, sel, would); err != nil {
			return err
		}
		if err := r.print(cmd, "would redrive", would); err != nil {
			return err
		}
		if would.Chunks > 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "nothing was moved; --yes does it")
		}
		return nil
	}
	total := newRedrove(false)
	if r.canary > 0 {
		first := sel
		first.Max = r.canary
		if r.max > 0 {
			first.Max = min(r.canary, r.max)
		}
		if err := r.move(cmd, c, first, total); err != nil {
			return err
		}
		if err := r.await(cmd, c, total); err != nil {
			return err
		}
		if sel.Max > 0 {
			if sel.Max -= total.Chunks; sel.Max <= 0 {
				return r.print(cmd, "redrove", total)
			}
		}
		total.Refused = map[string]int64{} // they are met again
	}
	if err := r.move(cmd, c, sel, total); err != nil {
		return err
	}
	return r.print(cmd, "redrove", total)
}

// redrove is what all calls have moved, or would move.
type redrove struct {
	batchapi.Redriven
	jobs map[string]bool // of the chunks that were named
	more int             // jobs of those that were not
}

func newRedrove(dry bool) *redrove {
	return &redrove{Redriven: batchapi.Redriven{Object: "fanout.redrive", DryRun: dry, Refused: map[string]int64{}, Followed: []batchapi.Followed{}}, jobs: map[string]bool{}}
}

// add adds what one call has moved. A job counts once, however many calls it took; where a call names no more of its chunks,
// one that it shares with the next may count twice.
func (r *redrove) add(done *batchapi.Redriven) error {
	r.Chunks += done.Chunks
	r.Requests += done.Requests
	r.Cleared += done.Cleared
	r.Followed = append(r.Followed, done.Followed...)
	for code, n := range done.Refused {
		r.Refused[code] += n
	}
	named := map[string]bool{}
	for _, f := range done.Followed {
		id, err := jobs.ParseChunkRef(f.ID)
		if err != nil {
			return fmt.Errorf("read what was redriven: %w", err)
		}
		named[string(id.Job)] = true
	}
	maps.Copy(r.jobs, named)
	r.more += max(0, done.Batches-len(named))
	r.Batches = len(r.jobs) + r.more
	return nil
}

// move redrives, or counts, until all is done, call after call. If one fails, what those before it have moved is told.
func (r *redriving) move(cmd *cobra.Command, c *batchapi.Client, sel batchapi.DeadSelection, total *redrove) (err error) {
	defer func() {
		if err != nil && total.Chunks > 0 && r.yes {
			fmt.Fprintf(cmd.ErrOrStderr(), "moved %d chunks before it failed\n", total.Chunks)
		}
	}()
	q := batchapi.RedriveRequest{DeadSelection: sel, Rate: r.rate, DryRun: !r.yes}
	began, moved := time.Now(), int64(0)
	for {
		done, err := c.Redrive(cmd.Context(), q)
		if err == nil {
			err = total.add(&done)
		}
		if err != nil {
			return err
		}
		if q.Max > 0 {
			q.Max -= done.Chunks
		}
		if done.Next == nil || sel.Max > 0 && q.Max <= 0 {
			return nil
		}
		q.From = *done.Next
		moved += done.Chunks
		if err := r.pace(cmd.Context(), began, moved); err != nil {
			return err
		}
	}
}

// pace waits until so many chunks may have been moved: a call knows nothing of the one before.
func (r *redriving) pace(ctx context.Context, began time.Time, moved int64) error {
	if r.rate <= 0 || !r.yes {
		return nil
	}
	timer := time.NewTimer(time.Until(began.Add(time.Duration(float64(moved) / r.rate * float64(time.Second)))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// followEvery is how often it is asked what became of the canary.
const followEvery = time.Second

// await waits for what became of the chunks that went first.
func (r *redriving) await(cmd *cobra.Command, c *batchapi.Client, first *redrove) error {
	if first.Chunks == 0 {
		return nil
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "moved %d chunks; waiting for what becomes of them\n", first.Chunks)
	ctx, cancel := context.WithTimeout(cmd.Context(), r.canaryWait)
	defer cancel()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		became, err := c.Follow(ctx, first.Followed)
		if err != nil && cmd.Context().Err() == nil && ctx.Err() != nil {
			became.States = []string{string(jobs.FollowPending)} // too late
		} else if err != nil {
			return err
		}
		failed, pending := 0, 0
		for _, s := range became.States {
			switch jobs.FollowState(s) {
			case jobs.FollowFailed:
				failed++
			case jobs.FollowPending:
				pending++
			}
		}
		switch {
		case failed > 0:
			if err := r.print(cmd, "redrove", first); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d chunks failed again: nothing more was moved\n", failed, len(became.States))
			return told(exitItemsFailed)
		case pending == 0:
			return nil
		case ctx.Err() != nil && cmd.Context().Err() == nil:
			return jobs.Errorf(jobs.CodeLimit, "after %s %d chunks have not come to an end: nothing more was moved", r.canaryWait, pending).
				WithHint("look at the job (fanout job errors), or wait longer with --canary-wait")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func (r *redriving) print(cmd *cobra.Command, did string, done *redrove) error {
	if r.f.json {
		return printJSON(cmd.OutOrStdout(), done.Redriven)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %d chunks with %d open items of %d jobs\n", did, done.Chunks, done.Requests, done.Batches)
	for _, code := range slices.Sorted(maps.Keys(done.Refused)) {
		fmt.Fprintf(cmd.OutOrStdout(), "refused: %d (%s)\n", done.Refused[code], code)
	}
	return err
}

// moveQueue has the transport move all letters of a queue, and waits until it has.
func (r *redriving) moveQueue(cmd *cobra.Command, c *batchapi.Client) error {
	ctx := cmd.Context()
	if r.stop {
		s, err := c.StopMove(ctx, r.queue)
		if err != nil {
			return err
		}
		return r.printMove(cmd, &s)
	}
	s, err := r.state(ctx, c)
	if err != nil {
		return err
	}
	if !r.yes {
		if r.f.json {
			return printJSON(cmd.OutOrStdout(), s)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "would move about %d messages into queue %s\n", s.Dead, r.queue)
		fmt.Fprintln(cmd.ErrOrStderr(), "nothing was moved; --yes does it")
		return nil
	}
	if s, err = c.MoveLetters(ctx, r.queue, int(r.rate)); err != nil {
		return err
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for len(s.Moves) > 0 && s.Moves[0].State == string(jobs.MoveRunning) {
		fmt.Fprintf(cmd.ErrOrStderr(), "moved %d of about %d\n", s.Moves[0].Moved, s.Moves[0].Total)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return jobs.Errorf(jobs.CodeInvalid, "no longer waiting for the move, which goes on: %w", ctx.Err()).WithHint("fanout dlq redrive --queue %s --stop", r.queue)
		}
		if s, err = r.state(ctx, c); err != nil {
			return err
		}
	}
	return r.printMove(cmd, &s)
}

func (r *redriving) state(ctx context.Context, c *batchapi.Client) (batchapi.QueueState, error) {
	all, err := c.Queues(ctx)
	if err != nil {
		return batchapi.QueueState{}, err
	}
	for _, s := range all.Data {
		if s.ID == r.queue {
			return s, nil
		}
	}
	return batchapi.QueueState{}, jobs.Errorf(jobs.CodeNotFound, "there is no queue %.40q", r.queue).WithHint("fanout dlq queues lists them")
}

func (r *redriving) printMove(cmd *cobra.Command, s *batchapi.QueueState) error {
	if r.f.json {
		return printJSON(cmd.OutOrStdout(), s)
	}
	if len(s.Moves) == 0 {
		return nil
	}
	m := s.Moves[0]
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "the move is %s: %d of about %d messages\n", m.State, m.Moved, m.Total)
	if m.State == string(jobs.MoveFailed) {
		return jobs.Errorf(jobs.CodeInternal, "the move failed: %s", or(m.Why))
	}
	return err
}

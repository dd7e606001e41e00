package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fanout-inference/fanout/pkg/batchapi"
	"github.com/fanout-inference/fanout/pkg/jobs"
)

func newDLQ() *cobra.Command {
	var f clientFlags
	return newGroup(&f, "dlq", "See why work is in the dead letters, and bring it back, as an operator", `  fanout dlq list --code upstream_error
  fanout dlq redrive --code upstream_error
  fanout dlq redrive --code upstream_error --canary 2 --rate 5 --yes`,
		newDLQList(&f), newDLQShow(&f), newDLQRedrive(&f), newDLQPurge(&f), newDLQQueues(&f))
}

// selection is the flags that say which dead chunks are meant.
type selection struct {
	job, tenant, code string
	olderThan         time.Duration
}

func (s *selection) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.job, "job", "", "those of one job `ID`")
	cmd.Flags().StringVar(&s.tenant, "tenant", "", "those of one tenant")
	cmd.Flags().StringVar(&s.code, "code", "", "those whose commonest last error has this `CODE`")
	cmd.Flags().DurationVar(&s.olderThan, "older-than", 0, "those that have been dead for so long")
}

func (s *selection) wire() (batchapi.DeadSelection, error) {
	if s.olderThan < 0 {
		return batchapi.DeadSelection{}, jobs.Errorf(jobs.CodeInvalid, "--older-than must not be negative, as %s is", s.olderThan)
	}
	return batchapi.DeadSelection{Job: s.job, Tenant: s.tenant, Code: s.code, OlderThan: int64(s.olderThan / time.Second)}, nil
}

func newDLQList(f *clientFlags) *cobra.Command {
	var s selection
	var l listFlags
	var queue string
	cmd := &cobra.Command{
		Use: "list", Short: "List dead chunks, and why they are dead",
		Long: `Lists chunks of jobs of all tenants that were given up, as the ledger has them; nothing is taken out of a queue. STATE says
what a redrive would do: "waiting" moves, "on_its_way" was redriven a moment ago, "refused" stays, as its job takes no work back.

With --queue, lists the messages in the dead letters of a queue (ingest, work, aggregate or notify) as they are, and what the
ledger says to each: "dead" would be redriven, "stale" would do nothing, "other" was given up by the queue itself, and
"unreadable" is no message of fanout.`,
		Example: `  fanout dlq list --code context_length_exceeded --older-than 2h
  fanout dlq list --job batch_abc --all --json | jq -r .id
  fanout dlq list --queue ingest`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			if queue != "" {
				return listLetters(cmd, f, c, queue, l)
			}
			sel, err := s.wire()
			if err != nil {
				return err
			}
			columns := []string{"ID", "STATE", "TENANT", "LINES", "OPEN", "CODE", "ATTEMPTS", "DEAD SINCE", "MESSAGE"}
			return list(cmd, f, l, 1000, func(q batchapi.ListQuery) (batchapi.List[batchapi.DeadChunk], error) {
				return c.DeadChunks(cmd.Context(), batchapi.DeadQuery{DeadSelection: sel, After: q.After, Limit: q.Limit})
			}, columns, func(d batchapi.DeadChunk) []string {
				state := d.State
				if d.Refused != nil {
					state += " (" + *d.Refused + ")"
				}
				return []string{d.ID, state, d.Tenant, linesOf(&d), strconv.Itoa(d.Open), d.Code, strconv.Itoa(d.Attempts), at(d.DeadAt), d.Message}
			})
		},
	}
	s.add(cmd)
	l.add(cmd)
	cmd.Flags().StringVar(&queue, "queue", "", "list the letters of a `QUEUE` as they are instead")
	return cmd
}

func linesOf(d *batchapi.DeadChunk) string {
	return fmt.Sprintf("%d-%d", d.Line, d.Line+int64(d.Lines)-1)
}

func listLetters(cmd *cobra.Command, f *clientFlags, c *batchapi.Client, queue string, l listFlags) error {
	limit := l.limit
	if l.all {
		limit = 1000
	}
	found, err := c.Letters(cmd.Context(), queue, limit)
	if err != nil {
		return err
	}
	if l.all && found.HasMore {
		fmt.Fprintf(cmd.ErrOrStderr(), "there are more than these %d\n", len(found.Data))
	}
	columns := []string{"ID", "STANDING", "JOB", "CODE", "ATTEMPTS", "SENT", "MESSAGE"}
	return printAll(cmd, f, found.Data, columns, func(d batchapi.DeadLetter) []string {
		return []string{d.ID, d.Standing, or(d.Batch), or(d.Code), strconv.Itoa(d.Attempts), at(d.SentAt), or(d.Message)}
	})
}

func newDLQShow(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a dead chunk, with its items and their last errors",
		Example: `  fanout dlq show batch_abc.0.4194304
  fanout dlq show batch_abc.0.4194304 --json | jq -r '.items[].custom_id'`,
		Args: oneArgument("dead chunk ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			d, err := c.DeadChunk(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if f.json {
				return printJSON(cmd.OutOrStdout(), d)
			}
			rows := [][2]string{{"id", d.ID}, {"job", d.Batch}, {"tenant", d.Tenant}, {"state", d.State}, {"lines", linesOf(&d)},
				{"dead since", at(d.DeadAt)}, {"attempts", strconv.Itoa(d.Attempts)}, {"burials", strconv.Itoa(d.Burials)}, {"error", oneLine(d.Code + ": " + d.Message)}}
			if d.Why != nil {
				rows = append(rows, [2]string{"refused", oneLine(*d.Why)})
			}
			if err := writeRows(cmd.OutOrStdout(), isTerminal(cmd.OutOrStdout()), rows); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout())
			return printAll(cmd, f, d.Items, []string{"LINE", "CUSTOM ID", "STATUS", "CODE", "CALLS", "CRASHES", "MESSAGE"}, func(i batchapi.DeadItem) []string {
				status := "-"
				if i.Status != nil {
					status = strconv.Itoa(*i.Status)
				}
				return []string{strconv.FormatInt(i.Line, 10), i.CustomID, status, i.Code, strconv.Itoa(i.Calls), strconv.Itoa(i.Crashes), i.Message}
			})
		},
	}
}

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
		would := batchapi.Redriven{Object: "fanout.redrive", DryRun: true, Refused: map[string]int64{}, Followed: []batchapi.Followed{}}
		if err := r.move(cmd.Context(), c, sel, &would); err != nil {
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
	total := batchapi.Redriven{Object: "fanout.redrive", Refused: map[string]int64{}, Followed: []batchapi.Followed{}}
	if r.canary > 0 {
		first := sel
		first.Max = r.canary
		if r.max > 0 {
			first.Max = min(r.canary, r.max)
		}
		if err := r.move(cmd.Context(), c, first, &total); err != nil {
			return err
		}
		if err := r.await(cmd, c, &total); err != nil {
			return err
		}
		if sel.Max > 0 {
			if sel.Max -= total.Chunks; sel.Max == 0 {
				return r.print(cmd, "redrove", total)
			}
		}
		total.Refused = map[string]int64{} // they are met again
	}
	if err := r.move(cmd.Context(), c, sel, &total); err != nil {
		return err
	}
	return r.print(cmd, "redrove", total)
}

// move redrives, or counts, until all is done, call after call.
func (r *redriving) move(ctx context.Context, c *batchapi.Client, sel batchapi.DeadSelection, total *batchapi.Redriven) error {
	q := batchapi.RedriveRequest{DeadSelection: sel, Rate: r.rate, DryRun: !r.yes}
	batches := total.Batches
	began, moved := time.Now(), int64(0)
	for {
		done, err := c.Redrive(ctx, q)
		if err != nil {
			return err
		}
		total.Chunks += done.Chunks
		total.Requests += done.Requests
		total.Cleared += done.Cleared
		batches = max(batches, done.Batches)
		total.Batches = batches
		total.Followed = append(total.Followed, done.Followed...)
		for code, n := range done.Refused {
			total.Refused[code] += n
		}
		if q.Max > 0 {
			q.Max -= done.Chunks
		}
		if done.Next == nil || sel.Max > 0 && q.Max == 0 {
			return nil
		}
		q.From = *done.Next
		moved += done.Chunks
		if err := r.pace(ctx, began, moved); err != nil {
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
func (r *redriving) await(cmd *cobra.Command, c *batchapi.Client, first *batchapi.Redriven) error {
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
			if err := r.print(cmd, "redrove", *first); err != nil {
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

func (r *redriving) print(cmd *cobra.Command, did string, done batchapi.Redriven) error {
	if r.f.json {
		return printJSON(cmd.OutOrStdout(), done)
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

func newDLQPurge(f *clientFlags) *cobra.Command {
	var s selection
	var queue string
	var stale, yes bool
	cmd := &cobra.Command{
		Use: "purge", Short: "Clear dead chunks out of the dead letters for good",
		Long: `Clears dead chunks out of the dead letters. Nobody lists or redrives them any more; their items stay failed in the results of
their jobs, and can be asked for again by a job of their own (fanout job retry). Without --yes it only counts.

With --queue, removes the messages in the dead letters of a queue as they are; with --stale only those that would do nothing.`,
		Example: `  fanout dlq purge --job batch_abc            # counts
  fanout dlq purge --job batch_abc --yes
  fanout dlq purge --queue work --stale --yes`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			sel, err := s.wire()
			var done batchapi.Purged
			switch {
			case err != nil:
				return err
			case queue != "" && s != selection{}:
				return jobs.Errorf(jobs.CodeInvalid, "--queue takes the letters as they are: it goes with --stale and --yes only")
			case stale && queue == "":
				return jobs.Errorf(jobs.CodeInvalid, "--stale is for the letters of a queue: name it with --queue")
			case queue != "":
				done, err = c.PurgeLetters(cmd.Context(), queue, stale, !yes)
			default:
				done, err = c.PurgeDead(cmd.Context(), sel, !yes)
			}
			if err != nil || f.json {
				if err == nil {
					err = printJSON(cmd.OutOrStdout(), done)
				}
				return err
			}
			what := map[bool]string{true: "would purge", false: "purged"}[done.DryRun]
			if _, err = fmt.Fprintf(cmd.OutOrStdout(), "%s %d\n", what, done.Purged); err == nil && done.DryRun && done.Purged > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was removed; --yes does it, and it cannot be undone")
			}
			return err
		},
	}
	s.add(cmd)
	cmd.Flags().StringVar(&queue, "queue", "", "remove the letters of a `QUEUE`, as they are")
	cmd.Flags().BoolVar(&stale, "stale", false, "only those that would do nothing")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func newDLQQueues(f *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use: "queues", Short: "Show what the queues hold, and the last move of their dead letters",
		Example: `  fanout dlq queues
  fanout dlq queues --json | jq 'select(.dead > 0)'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			l, err := c.Queues(cmd.Context())
			if err != nil {
				return err
			}
			return printAll(cmd, f, l.Data, []string{"QUEUE", "WAITING", "IN FLIGHT", "DELAYED", "DEAD", "OLDEST", "LAST MOVE"}, func(s batchapi.QueueState) []string {
				count := func(n int64) string { return strconv.FormatInt(n, 10) }
				oldest, move := "-", "-"
				if s.Oldest != nil {
					oldest = time.Duration(*s.Oldest * float64(time.Second)).Round(time.Second).String()
				}
				if len(s.Moves) > 0 {
					move = strings.Join([]string{s.Moves[0].State, count(s.Moves[0].Moved), "of", count(s.Moves[0].Total)}, " ")
				}
				return []string{s.ID, count(s.Waiting), count(s.InFlight), count(s.Delayed), count(s.Dead), oldest, move}
			})
		},
	}
}

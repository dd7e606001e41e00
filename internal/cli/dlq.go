package cli

import (
	"fmt"
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
			switch {
			case queue != "" && (s != selection{} || l.after != ""):
				return jobs.Errorf(jobs.CodeInvalid, "--queue lists the letters as they are, in any order: it goes with --limit and --all only")
			case queue != "":
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

// mostLetters are listed: where they have no order there is no second page.
const mostLetters = 1000

func listLetters(cmd *cobra.Command, f *clientFlags, c *batchapi.Client, queue string, l listFlags) error {
	switch {
	case l.all:
		l.limit = mostLetters
	case l.limit < 1 || l.limit > mostLetters:
		return jobs.Errorf(jobs.CodeInvalid, "--limit of --queue must be from 1 to %d, not %d", mostLetters, l.limit)
	}
	found, err := c.Letters(cmd.Context(), queue, l.limit)
	if err != nil {
		return err
	}
	columns := []string{"ID", "STANDING", "JOB", "CODE", "ATTEMPTS", "SENT", "MESSAGE"}
	err = printAll(cmd, f, found.Data, columns, func(d batchapi.DeadLetter) []string {
		return []string{d.ID, d.Standing, or(d.Batch), or(d.Code), strconv.Itoa(d.Attempts), at(d.SentAt), or(d.Message)}
	})
	switch {
	case err != nil || !found.HasMore:
		return err
	case len(found.Data) < mostLetters:
		tellMore(cmd, true)
	default:
		fmt.Fprintf(cmd.ErrOrStderr(), "there are more than these %d letters, which are the most that can be listed\n", len(found.Data))
	}
	return nil
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

// purgeAll repeats a purge that had no time for all, and sums up. One that only counts would begin anew, and is asked once.
// most is of them all; 0 = any.
func purgeAll(most int64, purge func(most int64) (batchapi.Purged, error)) (batchapi.Purged, error) {
	var sum int64
	for {
		left := most
		if most > 0 {
			left = most - sum
		}
		one, err := purge(left)
		if sum += one.Purged; err != nil || !one.More || one.DryRun || one.Purged == 0 || sum == most {
			one.Purged = sum
			return one, err
		}
	}
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
				done, err = purgeAll(0, func(int64) (batchapi.Purged, error) { return c.PurgeLetters(cmd.Context(), queue, stale, !yes) })
			default:
				done, err = purgeAll(sel.Max, func(most int64) (batchapi.Purged, error) {
					sel.Max = most
					return c.PurgeDead(cmd.Context(), sel, !yes)
				})
			}
			if err != nil || f.json {
				if err == nil {
					err = printJSON(cmd.OutOrStdout(), done)
				}
				return err
			}
			what := map[bool]string{true: "would purge", false: "purged"}[done.DryRun]
			if done.More {
				what += " at least"
			}
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

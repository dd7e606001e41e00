package localjobs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// readAll reads pages one after the other until one is not full, and tells how it ended.
func (s *stepwise) readAll(q jobs.ReadQuery) (lines []string, end jobs.ReadState) {
	s.t.Helper()
	if q.Bytes == 0 {
		q.Bytes = 1 << 30
	}
	for {
		j := s.job()
		read := 0
		page, err := jobs.ReadOutcomes(s.t.Context(), s.Ports, &j, q, func(line []byte) error {
			read++
			lines = append(lines, string(line))
			return nil
		})
		s.must(err)
		if read > q.Items {
			s.t.Fatalf("a page of %d has %d lines", q.Items, read)
		}
		if page.State != jobs.ReadMore {
			return lines, page.State
		}
		again, err := jobs.ParseCursor(page.Next.String())
		s.must(err)
		if again != page.Next || again == q.After {
			s.t.Fatalf("after %s the next page begins at %s", q.After, page.Next)
		}
		q.After = again
	}
}

// published is what the files of the job have, in input order.
func (s *stepwise) published() (all, answers, failures []string) {
	s.t.Helper()
	lines := func(f *jobs.FileInfo) (lines []string) {
		if f == nil {
			return nil
		}
		r, err := s.local.Files.Read(s.t.Context(), f.FileRef, 0, -1)
		s.must(err)
		defer r.Close()
		body, err := io.ReadAll(r)
		s.must(err)
		for line := range strings.Lines(string(body)) {
			lines = append(lines, line)
		}
		return lines
	}
	out := s.job().Outputs
	answers, failures = lines(out.Answers), lines(out.Errors)
	all = slices.Concat(answers, failures)
	slices.SortFunc(all, func(a, b string) int { return itemOf(s.t, a) - itemOf(s.t, b) })
	return all, answers, failures
}

// itemOf is the number of the item that a line is about.
func itemOf(t *testing.T, line string) (n int) {
	t.Helper()
	var l struct {
		CustomID string `json:"custom_id"`
	}
	if err := json.Unmarshal([]byte(line), &l); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if _, err := fmt.Sscanf(l.CustomID, "c%d", &n); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return n
}

// someFail answers four of five items, and refuses the fifth.
func someFail(item, _ int) *jobs.Fault {
	if item%5 == 3 {
		return failure(400)
	}
	return nil
}

func smallSplits(j *jobs.Job) {
	chunksOf(4)(j)
	j.Cut.SplitBytes = 1000
}

func TestPagesOfAnySizeAreTheFilesInInputOrder(t *testing.T) {
	inSteps(t, someFail, func(t *testing.T, s *stepwise) {
		s.must(s.submit(37, smallSplits))
		s.run(1 << 40)
		all, answers, failures := s.published()
		for _, c := range []struct {
			only jobs.Which
			want []string
		}{{jobs.AllOutcomes, all}, {jobs.OnlyAnswered, answers}, {jobs.OnlyFailed, failures}} {
			for items := 1; items <= 38; items++ {
				got, end := s.readAll(jobs.ReadQuery{Only: c.only, Items: items})
				if diff := cmp.Diff(c.want, got); diff != "" || end != jobs.ReadComplete {
					t.Fatalf("%q in pages of %d end as %s (-files +pages):\n%s", c.only, items, end, diff)
				}
			}
			for size := 1; size < 1000; size += 333 {
				if got, _ := s.readAll(jobs.ReadQuery{Only: c.only, Items: 1000, Bytes: size}); !slices.Equal(got, c.want) {
					t.Fatalf("%q in pages of %d bytes are not the files", c.only, size)
				}
			}
		}
	})
}

func TestRunningJobIsReadUpToItsFirstOpenChunk(t *testing.T) {
	inSteps(t, someFail, func(t *testing.T, s *stepwise) {
		s.must(s.submit(12, chunksOf(4)))
		if got, end := s.readAll(jobs.ReadQuery{Items: 100}); len(got) > 0 || end != jobs.ReadPending {
			t.Errorf("before its scan: %d lines, %s", len(got), end)
		}
		s.dispatch()
		if got, end := s.readAll(jobs.ReadQuery{Items: 100}); len(got) > 0 || end != jobs.ReadPending {
			t.Errorf("before its first claim: %d lines, %s", len(got), end)
		}
		work := s.receive(jobs.QueueWork)
		slices.SortFunc(work, func(a, b jobs.Message) int { return int(s.chunkOf(a).ID.Offset - s.chunkOf(b).ID.Offset) })
		var after jobs.Cursor
		for _, step := range []struct {
			chunk int
			want  []int // items to be read since the last time
			end   jobs.ReadState
		}{{1, nil, jobs.ReadPending}, {0, []int{0, 1, 2, 3, 4, 5, 6, 7}, jobs.ReadPending}, {2, []int{8, 9, 10, 11}, jobs.ReadComplete}} {
			s.handle(t.Context(), s.worker, work[step.chunk:step.chunk+1])
			var got []int
			j := s.job()
			page, err := jobs.ReadOutcomes(t.Context(), s.Ports, &j, jobs.ReadQuery{After: after, Items: 100, Bytes: 1 << 20}, func(line []byte) error {
				got = append(got, itemOf(t, string(line)))
				return nil
			})
			s.must(err)
			if !slices.Equal(got, step.want) || page.State != step.end {
				t.Errorf("after chunk %d: items %v, %s; want %v, %s", step.chunk, got, page.State, step.want, step.end)
			}
			after = page.Next
		}
	})
}

func TestStoppedAndDeadItemsAreReadAsTheyArePublished(t *testing.T) {
	cancel := func(s *stepwise) {
		s.dispatch()
		s.handle(s.t.Context(), s.worker, s.receive(jobs.QueueWork)[:1])
		_, err := jobs.CancelJob(s.t.Context(), s.Ports, theJob, "enough")
		s.must(err)
	}
	for _, test := range []struct {
		name     string
		upstream func(item, call int) *jobs.Fault
		change   func(j *jobs.Job)
		stop     func(s *stepwise)
	}{
		{"cancelled on the way", someFail, chunksOf(4), cancel},
		{"cancelled at once", someFail, chunksOf(4), func(s *stepwise) {
			_, err := jobs.CancelJob(s.t.Context(), s.Ports, theJob, "enough")
			s.must(err)
		}},
		{"dead items", func(item, _ int) *jobs.Fault {
			if item == 7 {
				return failure(500)
			}
			return nil
		}, func(j *jobs.Job) { chunksOf(4)(j); j.MaxCalls = 2 }, func(*stepwise) {}},
	} {
		t.Run(test.name, func(t *testing.T) {
			inSteps(t, test.upstream, func(t *testing.T, s *stepwise) {
				s.must(s.submit(22, test.change))
				test.stop(s)
				s.run(1 << 45)
				var want []string
				if s.job().Outputs != nil {
					want, _, _ = s.published()
				}
				got, end := s.readAll(jobs.ReadQuery{Items: 3})
				if diff := cmp.Diff(want, got); diff != "" || end != jobs.ReadComplete {
					t.Errorf("it ends as %s (-files +pages):\n%s", end, diff)
				}
			})
		})
	}
}

func TestEachLineComesWithTheOneThatAskedForIt(t *testing.T) {
	inSteps(t, someFail, func(t *testing.T, s *stepwise) {
		s.must(s.submit(9, chunksOf(4)))
		s.run(1 << 40)
		plain, _ := s.readAll(jobs.ReadQuery{Items: 100})
		merged, _ := s.readAll(jobs.ReadQuery{Items: 2, Input: true})
		for i, line := range merged {
			var l map[string]json.RawMessage
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			want := fmt.Sprintf(`{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","N":%d}}`, i, i)
			if !bytes.Equal(l["input"], []byte(want)) {
				t.Errorf("line %d asks %s, want %s", i, l["input"], want)
			}
			if without := strings.TrimSuffix(line, `,"input":`+want+"}\n") + "}\n"; without != plain[i] {
				t.Errorf("line %d is otherwise %q, want %q", i, without, plain[i])
			}
		}
	})
}

func TestFilesOfAJobAreKnownToItsOwner(t *testing.T) {
	inSteps(t, someFail, func(t *testing.T, s *stepwise) {
		s.must(s.submit(12, func(j *jobs.Job) { chunksOf(4)(j); j.KeepOutput = 1 << 44 }))
		s.run(1 << 42)
		out := s.job().Outputs
		for kind, info := range map[string]*jobs.FileInfo{"answers": out.Answers, "errors": out.Errors} {
			f, err := jobs.ReadFile(t.Context(), s.Ports, "tenant", info.FileID())
			s.must(err)
			if f.Purpose != jobs.PurposeBatchOutput || f.Name != string(theJob)+"_"+kind+".jsonl" || f.Bytes != info.Bytes || f.Job != theJob || f.Expires.Sub(f.Created) != 1<<44 {
				t.Errorf("the %s are known as %+v", kind, f)
			}
			if _, err := jobs.ReadFile(t.Context(), s.Ports, "stranger", info.FileID()); jobs.CodeOf(err) != jobs.CodeNotFound {
				t.Errorf("a stranger finds the %s: %v", kind, err)
			}
		}
	})
}

func TestJobOfWhichTooMuchFailsIsPausedUntilSomebodyHasLooked(t *testing.T) {
	half := func(item, _ int) *jobs.Fault {
		time.Sleep(5 * time.Second) // long enough for folds in between
		if item%2 == 0 {
			return failure(400)
		}
		return nil
	}
	for _, test := range []struct {
		tolerated float64
		paused    bool
	}{{0, true}, {40, true}, {49.9, true}, {50, false}, {100, false}} {
		t.Run(fmt.Sprint(test.tolerated), func(t *testing.T) {
			inSteps(t, half, func(t *testing.T, s *stepwise) {
				s.must(s.submit(1000, func(j *jobs.Job) { chunksOf(20)(j); j.Tolerated = &test.tolerated }))
				s.settle()
				j := s.job()
				if paused := j.Pause != nil && j.Pause.Reason == jobs.PauseTolerated; paused != test.paused {
					t.Fatalf("pause %+v, want one: %v", j.Pause, test.paused)
				}
				if !test.paused {
					s.run(1 << 42)
					return
				}
				s.sweeps(3)
				if j := s.job(); j.Pause == nil || j.Phase.Ended() {
					t.Fatalf("it does not stay paused: %s, %+v", j.Phase, j.Pause)
				}
				s.must(jobs.Resume(t.Context(), s.Ports, theJob))
				s.run(1 << 42)
				if j := s.job(); j.Phase != jobs.PhaseCompleted || j.Outputs.Totals.Failed != 500 {
					t.Errorf("it ends as %s with %d failures", j.Phase, j.Outputs.Totals.Failed)
				}
			})
		})
	}
}

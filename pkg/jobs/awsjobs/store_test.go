package awsjobs_test

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/internal/awstest"
	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/awsjobs"
	"github.com/fanout-inference/fanout/pkg/jobs/jobstest"
)

func TestLedger(t *testing.T) {
	jobstest.TestLedger(t, func(t *testing.T) jobs.Ledger { return newTable(t).open() })
}

func TestRegistry(t *testing.T) {
	jobstest.TestRegistry(t, func(t *testing.T) jobs.Registry { return newTable(t).open() })
}

// testTable is a table of its own, and what was asked of it.
type testTable struct {
	*tableWire
	client *dynamodb.Client
	name   string
}

func newTable(t *testing.T) *testTable {
	c := awstest.DynamoDB(t)
	wire := &tableWire{through: c.Options().HTTPClient}
	return &testTable{wire, dynamodb.New(c.Options(), wire.install), awstest.Table(t, c, awsjobs.TableInput)}
}

// open makes a store as another process would.
func (tt *testTable) open() *awsjobs.Store { return awsjobs.NewStore(tt.client, tt.name) }

// item reads an item as it is kept.
func (tt *testTable) item(t *testing.T, pk, sk string) map[string]types.AttributeValue {
	t.Helper()
	out, err := tt.client.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: &tt.name, ConsistentRead: aws.Bool(true), Key: map[string]types.AttributeValue{
		"pk": &types.AttributeValueMemberS{Value: pk}, "sk": &types.AttributeValueMemberS{Value: sk},
	}})
	if err != nil || out.Item == nil {
		t.Fatalf("item %s %s: %v, error %v", pk, sk, out, err)
	}
	return out.Item
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func aJob(id jobs.JobID) *jobs.Job {
	return &jobs.Job{V: 1, ID: id, Tenant: "tenant", Phase: jobs.PhaseInProgress, Created: noon, MovedAt: noon, Deadline: noon.Add(24 * time.Hour)}
}

func aSplit(job jobs.JobID, n int) *jobs.Split { return &jobs.Split{V: 1, Job: job, N: n} }

func aChunk(job jobs.JobID, offset int64) *jobs.Chunk {
	return &jobs.Chunk{V: 1, ID: jobs.ChunkID{Job: job, Offset: offset}, Length: 1000, Lines: 10}
}

func aGate(owner, id string) *jobs.Entry {
	return &jobs.Entry{Kind: jobs.KindGate, Owner: owner, ID: id, Body: []byte(`{"width":8}`)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read[R any](t *testing.T, records iter.Seq2[R, error]) (all []R) {
	t.Helper()
	for r, err := range records {
		must(t, err)
		all = append(all, r)
	}
	return all
}

func TestRequestsOfEachOperation(t *testing.T) {
	const chunks = 200
	tt := newTable(t)
	s := tt.open()
	for i := range 3 {
		must(t, s.SaveJob(t.Context(), aJob(jobs.JobID(fmt.Sprint("job-", i)))))
	}
	closed := aJob("closed")
	closed.Closed, closed.Tenant = true, "another"
	must(t, s.SaveJob(t.Context(), closed))
	must(t, s.SaveSplit(t.Context(), aSplit("job-0", 0)))
	for i := range int64(chunks) {
		must(t, s.SaveChunk(t.Context(), aChunk("job-0", i*1000)))
	}
	must(t, s.SaveEntry(t.Context(), aGate("a", "x")))
	gate := aGate("b", "x")
	must(t, s.SaveEntry(t.Context(), gate))
	count := func(n int, err error, want int) error {
		if err == nil && n != want {
			err = fmt.Errorf("%d records, want %d", n, want)
		}
		return err
	}

	for _, row := range []struct {
		what string
		do   func(s *awsjobs.Store) error
		want []string
	}{
		{"read a job", func(s *awsjobs.Store) error { _, err := s.Job(t.Context(), "job-0"); return err }, []string{"GetItem"}},
		{"save a new job", func(s *awsjobs.Store) error { return s.SaveJob(t.Context(), aJob("job-new")) }, []string{"PutItem"}},
		{"read a split", func(s *awsjobs.Store) error { _, err := s.Split(t.Context(), "job-0", 0); return err }, []string{"GetItem"}},
		{"claim at the first delivery: look, claim, look", func(s *awsjobs.Store) error {
			_, before := s.Job(t.Context(), "job-1")
			err := s.SaveChunk(t.Context(), aChunk("job-1", 0))
			_, after := s.Job(t.Context(), "job-1")
			return errors.Join(before, err, after)
		}, []string{"GetItem", "PutItem", "GetItem"}},
		{"save two chunks of a job that this process never read", func(s *awsjobs.Store) error {
			return errors.Join(s.SaveChunk(t.Context(), aChunk("job-2", 0)), s.SaveChunk(t.Context(), aChunk("job-2", 1000)))
		}, []string{"GetItem", "PutItem", "PutItem"}},
		{"lose the compare-and-swap", func(s *awsjobs.Store) error {
			if err := s.SaveJob(t.Context(), aJob("job-0")); !errors.Is(err, jobs.ErrConflict) {
				return fmt.Errorf("save: %w, want ErrConflict", err)
			}
			return nil
		}, []string{"PutItem"}},
		{"read one chunk", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Chunks(t.Context(), "job-0", 0, jobs.At(5000)))), nil, 1)
		}, []string{"Query"}},
		{"read one chunk that is not there", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Chunks(t.Context(), "job-0", 0, jobs.At(5001)))), nil, 0)
		}, []string{"Query"}},
		{"read no chunk", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Chunks(t.Context(), "job-0", 0, jobs.OffsetRange{From: 7, To: 7}))), nil, 0)
		}, nil},
		{"read the first chunks, and stop", func(s *awsjobs.Store) error {
			for _, err := range s.Chunks(t.Context(), "job-0", 0, jobs.OffsetRange{}) {
				return err
			}
			return errors.New("no chunk")
		}, []string{"Query"}},
		{"read all chunks", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Chunks(t.Context(), "job-0", 0, jobs.OffsetRange{}))), nil, chunks)
		}, []string{"Query", "Query"}},
		{"list the splits of a job", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Splits(t.Context(), "job-0"))), nil, 1)
		}, []string{"Query"}},
		{"list the open jobs", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Jobs(t.Context(), jobs.JobQuery{Open: true}))), nil, 4)
		}, []string{"Query", "BatchGetItem"}},
		{"list the jobs of a tenant", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Jobs(t.Context(), jobs.JobQuery{Tenant: "tenant"}))), nil, 4)
		}, []string{"Query", "BatchGetItem"}},
		{"list two jobs of a tenant after another", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Jobs(t.Context(), jobs.JobQuery{Tenant: "tenant", After: "job-2", Limit: 2}))), nil, 2)
		}, []string{"GetItem", "Query", "BatchGetItem"}},
		{"list the jobs of a tenant without any", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Jobs(t.Context(), jobs.JobQuery{Tenant: "nobody"}))), nil, 0)
		}, []string{"Query"}},
		{"read a gate", func(s *awsjobs.Store) error { _, err := s.Entry(t.Context(), jobs.KindGate, "a", "x"); return err }, []string{"GetItem"}},
		{"save a gate", func(s *awsjobs.Store) error { return s.SaveEntry(t.Context(), gate) }, []string{"PutItem"}},
		{"list the gates of an upstream", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Entries(t.Context(), jobs.KindGate, "a"))), nil, 1)
		}, []string{"Query"}},
		{"list the gates of all of two upstreams", func(s *awsjobs.Store) error {
			return count(len(read(t, s.Entries(t.Context(), jobs.KindGate, ""))), nil, 2)
		}, []string{"Query", "Query", "Query"}},
		{"make an entry", func(s *awsjobs.Store) error { return s.SaveEntry(t.Context(), aGate("c", "x")) }, []string{"PutItem"}},
		{"drop an entry", func(s *awsjobs.Store) error { return s.DropEntry(t.Context(), *gate) }, []string{"PutItem"}},
		{"make it again", func(s *awsjobs.Store) error { return s.SaveEntry(t.Context(), aGate("b", "x")) }, []string{"PutItem", "GetItem", "PutItem"}},
	} {
		t.Run(row.what, func(t *testing.T) {
			s := tt.open()
			tt.forget()
			must(t, row.do(s))
			if diff := cmp.Diff(row.want, tt.operations()); diff != "" {
				t.Errorf("requests (-want +sent):\n%s", diff)
			}
			for _, r := range tt.sent {
				if in := r.body; strings.HasPrefix(r.operation, "PutItem") == strings.Contains(in, `"ConsistentRead":true`) && !strings.Contains(in, `"IndexName"`) {
					t.Errorf("a read of the table that is not consistent, or something else: %s %s", r.operation, in)
				}
			}
		})
	}
}

func TestRecordsExpireWithTheirJob(t *testing.T) {
	const retention = 45 * 24 * time.Hour
	tt := newTable(t)
	expiry := func(pk, sk string) string {
		t.Helper()
		if v, ok := tt.item(t, pk, sk)["expires"].(*types.AttributeValueMemberN); ok {
			return v.Value
		}
		return "never"
	}
	check := func(what, got string, deadline time.Time) {
		t.Helper()
		if want := fmt.Sprint(deadline.Add(retention).Unix()); got != want {
			t.Errorf("%s expires at %s, want %s", what, got, want)
		}
	}
	s := tt.open()
	j := aJob("job")
	must(t, s.SaveJob(t.Context(), j))
	must(t, s.SaveSplit(t.Context(), aSplit("job", 3)))
	must(t, s.SaveChunk(t.Context(), aChunk("job", 0)))
	must(t, tt.open().SaveChunk(t.Context(), aChunk("job", 1000)))
	check("the job", expiry("J#job", "job"), j.Deadline)
	check("its split", expiry("S#job", "0000000003"), j.Deadline)
	check("its chunk", expiry("C#job#0", "0000000000000000000"), j.Deadline)
	check("a chunk saved by another process", expiry("C#job#0", "0000000000000001000"), j.Deadline)

	other := tt.open() // reopens the job, while s remembers the old deadline
	reopened, err := other.Job(t.Context(), "job")
	must(t, err)
	reopened.Deadline = reopened.Deadline.Add(240 * time.Hour)
	must(t, other.SaveJob(t.Context(), &reopened))
	must(t, other.SaveChunk(t.Context(), aChunk("job", 2000)))
	_, err = s.Job(t.Context(), "job")
	must(t, err)
	must(t, s.SaveChunk(t.Context(), aChunk("job", 3000)))
	check("a chunk saved by who reopened the job", expiry("C#job#0", "0000000000000002000"), reopened.Deadline)
	check("a chunk saved by who read it since", expiry("C#job#0", "0000000000000003000"), reopened.Deadline)

	timeless := aJob("timeless")
	timeless.Deadline = time.Time{}
	must(t, s.SaveJob(t.Context(), timeless))
	must(t, s.SaveChunk(t.Context(), aChunk("timeless", 0)))
	if got := []string{expiry("J#timeless", "job"), expiry("C#timeless#0", "0000000000000000000")}; !slices.Equal(got, []string{"never", "never"}) {
		t.Errorf("a job without deadline and its chunk expire: %s", got)
	}

	before := time.Now()
	must(t, s.SaveChunk(t.Context(), aChunk("absent", 0)))
	var at int64
	_, err = fmt.Sscan(expiry("C#absent#0", "0000000000000000000"), &at)
	must(t, err)
	if at < before.Add(retention).Unix() || at > time.Now().Add(retention+time.Second).Unix() {
		t.Errorf("a chunk without job expires at %d, want one retention from now", at)
	}
}

func TestExpiredEntryMakesWay(t *testing.T) {
	s := newTable(t).open()
	old := aGate("owner", "id")
	old.Expires = time.Now().Add(-time.Hour)
	must(t, s.SaveEntry(t.Context(), old))
	again := aGate("owner", "id")
	must(t, s.SaveEntry(t.Context(), again))
	if again.Revision <= old.Revision {
		t.Errorf("revision %d after %d", again.Revision, old.Revision)
	}
	if err := s.SaveEntry(t.Context(), old); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("save of the expired one: %v, want ErrConflict", err)
	}
	if err := s.SaveEntry(t.Context(), aGate("owner", "id")); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("a second new one: %v, want ErrConflict", err)
	}
}

func TestDroppedEntryIsNowhere(t *testing.T) {
	s := newTable(t).open()
	e := aGate("owner", "id")
	must(t, s.SaveEntry(t.Context(), e))
	must(t, s.DropEntry(t.Context(), *e))
	for _, owner := range []string{"owner", ""} {
		if n := len(read(t, s.Entries(t.Context(), jobs.KindGate, owner))); n != 0 {
			t.Errorf("%d entries of owner %q after the drop", n, owner)
		}
	}
	for _, revision := range []int64{0, e.Revision, e.Revision + 1} {
		stale := *e
		stale.Revision = revision
		must(t, s.DropEntry(t.Context(), stale))
		if revision == 0 {
			continue
		}
		if _, err := s.Entry(t.Context(), jobs.KindGate, "owner", "id"); !errors.Is(err, jobs.ErrNotFound) {
			t.Errorf("after drop of revision %d: %v, want ErrNotFound", revision, err)
		}
	}
	fresh := aGate("owner", "id")
	must(t, s.SaveEntry(t.Context(), fresh))
	unsaved := *fresh
	unsaved.Revision = 0
	if err := s.DropEntry(t.Context(), unsaved); !errors.Is(err, jobs.ErrConflict) {
		t.Errorf("drop of an entry as if it had never been saved: %v, want ErrConflict", err)
	}
}

// A page of DynamoDB ends at 1 MB, whatever was asked for.
func TestPagesEndEarlyWithoutEndingTheList(t *testing.T) {
	tt := newTable(t)
	s := tt.open()
	must(t, s.SaveJob(t.Context(), aJob("job")))
	const n = 60
	for i := range n {
		r := aSplit("job", i)
		for p := range 250 {
			r.Pieces = append(r.Pieces, jobs.Piece{To: p, File: jobs.FileRef{Name: strings.Repeat("x", 100)}})
		}
		must(t, s.SaveSplit(t.Context(), r))
	}
	tt.forget()
	got := read(t, s.Splits(t.Context(), "job"))
	if len(got) != n || len(tt.operations()) < 3 {
		t.Errorf("%d splits by %d requests, want %d by at least 3", len(got), len(tt.operations()), n)
	}
}

func TestRecordThatIsTooBigIsNotSent(t *testing.T) {
	tt := newTable(t)
	s := tt.open()
	j := aJob("job")
	j.Metadata = map[string]string{}
	random := rand.New(rand.NewPCG(1, 2)) // so that nothing is won by compressing it
	for i := range 40_000 {
		j.Metadata[fmt.Sprint(i)] = fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64())
	}
	tt.forget()
	err := s.SaveJob(t.Context(), j)
	if jobs.CodeOf(err) != jobs.CodeLimit || !strings.Contains(fmt.Sprint(err), tt.name) || j.Revision != 0 || len(tt.operations()) != 0 {
		t.Errorf("%v, revision %d, requests %v; want an error of code limit that names the table, and no request", err, j.Revision, tt.operations())
	}
}

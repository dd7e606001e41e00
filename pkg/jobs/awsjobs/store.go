package awsjobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// Store keeps records and registry entries in a DynamoDB table (see TableInput).
//
// Listings of jobs, and of entries of all owners, find their keys in an index, which is behind the table by usually less
// than a second: a job that was just made may be missing. What they yield was read consistently.
type Store struct {
	client *dynamodb.Client
	table  string
	now    func() time.Time
	newID  func() string

	mu      sync.Mutex
	expires map[jobs.JobID]int64 // of jobs that were read or saved here
}

var (
	_ jobs.Ledger   = (*Store)(nil)
	_ jobs.Registry = (*Store)(nil)
)

// maxRemembered bounds the memory of a long-running process; what is forgotten is read again.
const maxRemembered = 10_000

// pages is how many records an iterator asks for at first, since callers often stop after a few, and then eight times as
// many each time, up to most. DynamoDB ends a page at 1 MB too.
type pages struct{ first, most int }

var (
	pagesOfJobs    = pages{25, maxBatch}
	pagesOfOpen    = pages{maxBatch, maxBatch}
	pagesOfSplits  = pages{16, 1024}
	pagesOfChunks  = pages{32, 2048}
	pagesOfEntries = pages{32, 2048}
	pagesOfListed  = pages{25, maxBatch}
)

// NewStore makes a Store. The client's retries are all there are.
func NewStore(client *dynamodb.Client, table string) *Store {
	newID := func() string { return rand.Text()[:16] } // 80 bits; each save carries one
	return &Store{client: client, table: table, now: time.Now, newID: newID, expires: map[jobs.JobID]int64{}}
}

func jobKey(id jobs.JobID) item             { return keyOf("J#"+string(id), "job") }
func splitsOf(job jobs.JobID) string        { return "S#" + string(job) }
func chunksOf(job jobs.JobID, n int) string { return fmt.Sprintf("C#%s#%d", job, n) }
func splitSort(n int) string                { return fmt.Sprintf("%010d", n) }
func chunkSort(offset int64) string         { return fmt.Sprintf("%019d", offset) }

// openJobs is attribute open of jobs.
const openJobs = "J"

// Job reads a job.
func (s *Store) Job(ctx context.Context, id jobs.JobID) (jobs.Job, error) {
	j, err := s.job(ctx, id)
	if err != nil {
		return j, fmt.Errorf("read job %s: %w", id, err)
	}
	return j, nil
}

func (s *Store) job(ctx context.Context, id jobs.JobID) (jobs.Job, error) {
	i, err := s.get(ctx, jobKey(id))
	if err != nil {
		return jobs.Job{}, err
	}
	return s.decodeJob(i)
}

func (s *Store) decodeJob(i item) (jobs.Job, error) {
	j, err := decode[jobs.Job](i)
	if err == nil {
		s.remember(j.ID, i.number(attrExpires))
	}
	return j, err
}

// SaveJob stores a job if nobody saved it since it was read.
func (s *Store) SaveJob(ctx context.Context, j *jobs.Job) error {
	body, err := jobs.EncodeRecord(j)
	if err == nil {
		i, expires := jobKey(j.ID), int64(0)
		i[attrTenant], i[attrCreated] = text(tenantKey(j.Tenant)), text(createdKey(j.Created, string(j.ID)))
		if !j.Closed {
			i[attrOpen] = text(openJobs)
		}
		if !j.Deadline.IsZero() {
			expires = seconds(j.Deadline.Add(jobs.RecordsKept))
		}
		if err = s.save(ctx, i, body, &j.Revision, expires); err == nil {
			s.remember(j.ID, expires)
		}
	}
	if err != nil {
		return fmt.Errorf("save job %s: %w", j.ID, err)
	}
	return nil
}

// tenantKey is never empty, as a key must not be.
func tenantKey(tenant string) string { return "T#" + tenant }

// createdKey sorts the jobs of a tenant, and the entries of an owner, by when they were created, those of one instant by id.
func createdKey(at time.Time, id string) string { return at.UTC().Format(createdLayout) + "#" + id }

const createdLayout = "2006-01-02T15:04:05.000000000Z"

// Jobs yields the jobs of a tenant, newest first, those of one instant by falling id; or the open jobs, by id.
func (s *Store) Jobs(ctx context.Context, q jobs.JobQuery) iter.Seq2[jobs.Job, error] {
	if q.Open {
		return walk("list jobs", pagesOfOpen, q.Limit, func(from item, limit int) ([]jobs.Job, item, error) {
			return s.jobs(ctx, openOf(openJobs), from, limit, func(j *jobs.Job) bool { return !j.Closed })
		})
	}
	return func(yield func(jobs.Job, error) bool) {
		of, err := s.jobsOfTenant(ctx, q)
		if err != nil {
			yield(jobs.Job{}, fmt.Errorf("list jobs: %w", err))
			return
		}
		walk("list jobs", pagesOfJobs, q.Limit, func(from item, limit int) ([]jobs.Job, item, error) {
			return s.jobs(ctx, of, from, limit, func(j *jobs.Job) bool { return j.Tenant == q.Tenant })
		})(yield)
	}
}

// openOf is the query for everything with that attribute open.
func openOf(what string) query {
	return query{index: indexOpen, condition: "#open = :open", names: map[string]string{"#open": attrOpen}, values: item{":open": text(what)}}
}

// jobsOfTenant is the query for the jobs of a tenant that follow q.After.
func (s *Store) jobsOfTenant(ctx context.Context, q jobs.JobQuery) (query, error) {
	of := query{
		index: indexTenant, condition: "#tenant = :tenant", backwards: true,
		names: map[string]string{"#tenant": attrTenant}, values: item{":tenant": text(tenantKey(q.Tenant))},
	}
	if q.After == "" {
		return of, nil
	}
	after, err := s.job(ctx, q.After)
	if err == nil && after.Tenant != q.Tenant {
		err = jobs.ErrNotFound
	}
	if err != nil {
		return of, fmt.Errorf("find job %s to go on after: %w", q.After, err)
	}
	of.condition += " AND #created < :after"
	of.names["#created"], of.values[":after"] = attrCreated, text(createdKey(after.Created, string(after.ID)))
	return of, nil
}

// jobs reads a page of an index, and then the jobs. The index may be behind them, so they say themselves whether they
// belong.
func (s *Store) jobs(ctx context.Context, q query, from item, limit int, belongs func(*jobs.Job) bool) ([]jobs.Job, item, error) {
	items, next, err := s.indexed(ctx, q, from, limit)
	if err != nil {
		return nil, nil, err
	}
	var found []jobs.Job
	for _, i := range items {
		j, err := s.decodeJob(i)
		if err != nil {
			return found, nil, err
		}
		if belongs(&j) {
			found = append(found, j)
		}
	}
	return found, next, nil
}

// indexed reads a page of an index, of at most maxBatch, and then the items that it lists, as they are now.
func (s *Store) indexed(ctx context.Context, q query, from item, limit int) (items []item, next item, err error) {
	listed, next, err := s.page(ctx, q, from, limit)
	if err != nil {
		return nil, nil, err
	}
	keys := make([]item, len(listed))
	for n, i := range listed {
		keys[n] = i.key()
	}
	items, err = s.getAll(ctx, keys)
	return items, next, err
}

// Split reads a split.
func (s *Store) Split(ctx context.Context, job jobs.JobID, n int) (jobs.Split, error) {
	var r jobs.Split
	i, err := s.get(ctx, keyOf(splitsOf(job), splitSort(n)))
	if err == nil {
		r, err = decode[jobs.Split](i)
	}
	if err != nil {
		return r, fmt.Errorf("read split %d of job %s: %w", n, job, err)
	}
	return r, nil
}

// Splits yields the splits of a job in order.
func (s *Store) Splits(ctx context.Context, job jobs.JobID) iter.Seq2[jobs.Split, error] {
	all := query{condition: "pk = :pk", values: item{":pk": text(splitsOf(job))}}
	return walk("list splits of job "+string(job), pagesOfSplits, 0, func(from item, limit int) ([]jobs.Split, item, error) {
		return records[jobs.Split](s.page(ctx, all, from, limit))
	})
}

// SaveSplit stores a split if nobody saved it since it was read.
func (s *Store) SaveSplit(ctx context.Context, r *jobs.Split) error {
	body, err := jobs.EncodeRecord(r)
	if err == nil {
		err = s.saveOf(ctx, r.Job, keyOf(splitsOf(r.Job), splitSort(r.N)), body, &r.Revision)
	}
	if err != nil {
		return fmt.Errorf("save split %d of job %s: %w", r.N, r.Job, err)
	}
	return nil
}

// Chunks yields the chunks of a split whose offsets are in a range, in order. One chunk is one request.
func (s *Store) Chunks(ctx context.Context, job jobs.JobID, split int, r jobs.OffsetRange) iter.Seq2[jobs.Chunk, error] {
	last := r.To - 1
	if r.To == 0 {
		last = math.MaxInt64
	}
	within := query{condition: "pk = :pk AND sk BETWEEN :first AND :last", values: item{
		":pk": text(chunksOf(job, split)), ":first": text(chunkSort(r.From)), ":last": text(chunkSort(last)),
	}}
	what := fmt.Sprintf("list chunks of split %d of job %s", split, job)
	return walk(what, pagesOfChunks, 0, func(from item, limit int) ([]jobs.Chunk, item, error) {
		if last < r.From {
			return nil, nil, nil
		}
		chunks, next, err := records[jobs.Chunk](s.page(ctx, within, from, limit))
		if n := len(chunks); n > 0 && chunks[n-1].ID.Offset == last {
			next = nil
		}
		return chunks, next, err
	})
}

// SaveChunk stores a chunk if nobody saved it since it was read.
func (s *Store) SaveChunk(ctx context.Context, c *jobs.Chunk) error {
	body, err := jobs.EncodeRecord(c)
	if err == nil {
		err = s.saveOf(ctx, c.ID.Job, keyOf(chunksOf(c.ID.Job, c.ID.Split), chunkSort(c.ID.Offset)), body, &c.Revision)
	}
	if err != nil {
		return fmt.Errorf("save chunk %s: %w", c.ID, err)
	}
	return nil
}

// saveOf saves what belongs to a job, and expires with it.
func (s *Store) saveOf(ctx context.Context, job jobs.JobID, key item, body []byte, revision *int64) error {
	expires, err := s.expiryOf(ctx, job)
	if err != nil {
		return fmt.Errorf("look up how long job %s is kept: %w", job, err)
	}
	return s.save(ctx, key, body, revision, expires)
}

func (s *Store) save(ctx context.Context, i item, body []byte, revision *int64, expires int64) error {
	var err error
	if i[attrBody], err = pack(body); err != nil {
		return err
	}
	if expires != 0 {
		i[attrExpires] = number(expires)
	}
	if err := s.put(ctx, i, *revision, *revision+1); err != nil {
		return err
	}
	*revision++
	return nil
}

// expiryOf is when the records of a job expire; 0 = never. Whoever works on a job has read it here, so it is nearly always
// known; else one read of the job finds it. Records of a job that is not there are kept for jobs.RecordsKept.
func (s *Store) expiryOf(ctx context.Context, job jobs.JobID) (int64, error) {
	s.mu.Lock()
	expires, known := s.expires[job]
	s.mu.Unlock()
	if known {
		return expires, nil
	}
	i, err := s.get(ctx, jobKey(job))
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return seconds(s.now().Add(jobs.RecordsKept)), nil
	case err != nil:
		return 0, err
	}
	s.remember(job, i.number(attrExpires))
	return i.number(attrExpires), nil
}

// remember keeps the expiry that was seen last: a job that is reopened has a new deadline, and is read or saved then.
func (s *Store) remember(job jobs.JobID, expires int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.expires) >= maxRemembered {
		clear(s.expires)
	}
	s.expires[job] = expires
}

// seconds is Unix time, rounded up.
func seconds(t time.Time) int64 { return t.Add(time.Second - 1).Unix() }

func decode[R jobs.Job | jobs.Split | jobs.Chunk](i item) (R, error) {
	body, err := i.body()
	if err != nil {
		var none R
		return none, err
	}
	return jobs.DecodeRecord[R](body, i.number(attrRev))
}

// records decodes a page. With an error it returns the records before it.
func records[R jobs.Split | jobs.Chunk](items []item, next item, err error) (page []R, _ item, _ error) {
	for _, i := range items {
		r, err := decode[R](i)
		if err != nil {
			return page, nil, err
		}
		page = append(page, r)
	}
	return page, next, err
}

// walk yields page after page. A page may have fewer records than were asked for; without next it is the last one. A
// limit of 0 means all.
func walk[R any](what string, size pages, limit int, page func(from item, limit int) (records []R, next item, err error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var from item
		left := limit
		for n := size.first; ; n = min(8*n, size.most) {
			if limit > 0 {
				n = min(n, left)
			}
			records, next, err := page(from, n)
			for _, r := range records {
				if !yield(r, nil) {
					return
				}
			}
			if err != nil {
				var none R
				yield(none, fmt.Errorf("%s: %w", what, err))
				return
			}
			left -= len(records)
			if len(next) == 0 || limit > 0 && left == 0 {
				return
			}
			from = next
		}
	}
}

package batchapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestIdempotencyKeyLeadsToOneBatch(t *testing.T) {
	a := newAPI(t, Options{})
	f := a.upload(lines(1))
	first := a.create(f.ID, "", "Idempotency-Key", "k1")
	for range 3 {
		if again := a.create(f.ID, "", "Idempotency-Key", "k1"); again.ID != first.ID {
			t.Errorf("the same key made %s and %s", first.ID, again.ID)
		}
	}
	if other := a.create(f.ID, "", "Idempotency-Key", "k2"); other.ID == first.ID {
		t.Error("another key led to the same batch")
	}
	r := a.post("/v1/batches", createBody(f.ID, `,"metadata":{"a":"b"}`), "Idempotency-Key", "k1")
	if r.status != 422 || r.header.Get("X-Should-Retry") != "false" {
		t.Errorf("the same key with another body: %d %s", r.status, r.body)
	}
	stranger := a.with(a.newKey("stranger", time.Time{}, Scopes...))
	g := stranger.upload(lines(1))
	if b := stranger.create(g.ID, "", "Idempotency-Key", "k1"); b.ID == first.ID {
		t.Error("a stranger's key led to it")
	}
	if r := a.with(a.newKey(someTenant, time.Time{}, Scopes...)).post("/v1/batches", createBody(f.ID, ""), "Idempotency-Key", fmt.Sprintf("%0256d", 1)); r.status != 400 {
		t.Errorf("a key that is too long: %d", r.status)
	}
}

func TestRepeatedCreateStandsWhateverBecameOfItsFile(t *testing.T) {
	a := newAPI(t, Options{})
	f := a.upload(lines(1))
	first := a.create(f.ID, "", "Idempotency-Key", "k")
	as[Deleted](t, a.call("DELETE", "/v1/files/"+f.ID, nil), "DeleteFileResponse")
	if again := a.create(f.ID, "", "Idempotency-Key", "k"); again.ID != first.ID {
		t.Errorf("%s became %s", first.ID, again.ID)
	}
}

func TestRetryOfAClientFindsItsFirstTry(t *testing.T) {
	retry := []string{"X-Stainless-Retry-Count", "1"}
	t.Run("first try, then a retry", func(t *testing.T) {
		a := newAPI(t, Options{})
		f := a.upload(lines(1))
		first := a.create(f.ID, "", "X-Stainless-Retry-Count", "0")
		if again := a.create(f.ID, "", retry...); again.ID != first.ID {
			t.Error("a retry made a batch of its own")
		}
		if other := a.create(f.ID, "", "X-Stainless-Retry-Count", "0"); other.ID == first.ID {
			t.Error("another create of the same was taken for a retry")
		}
	})
	t.Run("a first try that comes late", func(t *testing.T) {
		a := newAPI(t, Options{})
		f := a.upload(lines(1))
		again := a.create(f.ID, "", retry...)
		if first := a.create(f.ID, "", "X-Stainless-Retry-Count", "0"); first.ID != again.ID {
			t.Error("the first try made another batch")
		}
		if other := a.create(f.ID, "", "X-Stainless-Retry-Count", "0"); other.ID == again.ID {
			t.Error("another create of the same was taken for the first try")
		}
	})
	t.Run("after ten minutes", func(t *testing.T) {
		a := newAPI(t, Options{})
		now := time.Now()
		a.ports.Now = func() time.Time { return now }
		server := httptest.NewServer(New(a.ports, Options{OpenTenant: someTenant}))
		defer server.Close()
		a.server = server
		f := a.upload(lines(1))
		first := a.create(f.ID, "")
		now = now.Add(10 * time.Minute)
		if again := a.create(f.ID, "", retry...); again.ID == first.ID {
			t.Error("it is still taken for a retry")
		}
	})
}

// dyingLedger dies before, or after, a job is saved.
type dyingLedger struct {
	jobs.Ledger
	before, after bool
}

var errDead = errors.New("dead")

func (l *dyingLedger) SaveJob(ctx context.Context, j *jobs.Job) error {
	if l.before {
		return errDead
	}
	if err := l.Ledger.SaveJob(ctx, j); err != nil {
		return err
	}
	if l.after {
		return errDead
	}
	return nil
}

func TestCreateThatDiedAnywhereIsTheSameBatchLater(t *testing.T) {
	for _, dying := range []dyingLedger{{before: true}, {after: true}} {
		for _, header := range [][]string{{"Idempotency-Key", "k"}, {"X-Stainless-Retry-Count", "1"}} {
			a := newAPI(t, Options{})
			f := a.upload(lines(1))
			dying.Ledger = a.ports.Ledger
			p := a.ports
			p.Ledger = &dying
			sick := *a
			sick.server = httptest.NewServer(New(p, Options{OpenTenant: someTenant}))
			if r := sick.post("/v1/batches", createBody(f.ID, ""), header...); r.status < 500 || r.header.Get("X-Should-Retry") != "true" {
				t.Errorf("it did not die: %d %s", r.status, r.body)
			}
			sick.server.Close()
			b := a.create(f.ID, "", header...)
			again := a.create(f.ID, "", header...)
			if l := as[List[Batch]](t, a.get("/v1/batches"), "ListBatchesResponse"); b.ID != again.ID || len(l.Data) != 1 {
				t.Errorf("there are %d batches", len(l.Data))
			}
		}
	}
}

func TestThousandCreatesAtOnce(t *testing.T) {
	a := newAPI(t, Options{Burst: 10_000})
	f := a.upload(lines(1))
	const n, keys = 1000, 100
	var mu sync.Mutex
	ids := map[string]map[string]bool{} // key → batches
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			key := fmt.Sprintf("key-%d", i%keys)
			header := []string{"Idempotency-Key", key}
			if i%keys == 0 {
				key, header = "none", nil // identical creates without a key are as many batches
			}
			r, err := a.try("POST", "/v1/batches", strings.NewReader(createBody(f.ID, "")), append(header, "Content-Type", "application/json")...)
			var b Batch
			if err == nil {
				err = json.Unmarshal(r.body, &b)
			}
			if err != nil || r.status != 200 {
				t.Errorf("create %d: %d, %v: %s", i, r.status, err, r.body)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if ids[key] == nil {
				ids[key] = map[string]bool{}
			}
			ids[key][b.ID] = true
		})
	}
	all.Wait()
	for key, batches := range ids {
		want := 1
		if key == "none" {
			want = n / keys
		}
		if len(batches) != want {
			t.Errorf("%s made %d batches, want %d", key, len(batches), want)
		}
	}
}

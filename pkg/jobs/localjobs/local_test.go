package localjobs

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func openAt(t testing.TB, dir string, o Options) *Local {
	t.Helper()
	l, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// clock is a time that passes when a test says so.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestOneProcessAtATimeHasTheDirectory(t *testing.T) {
	dir := t.TempDir()
	first := openAt(t, dir, Options{})
	_, err := Open(t.Context(), dir, Options{})
	var e *jobs.Error
	if !errors.As(err, &e) || e.Code != jobs.CodeConflict || e.Hint == "" {
		t.Fatalf("second open: %v, want a conflict with a hint", err)
	}
	if want := "open data directory " + dir + ": it is in use by another process"; err.Error() != want {
		t.Errorf("it says %q, want %q", err, want)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openAt(t, dir, Options{})
}

func TestCloseTwiceDoesNothing(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	for range 2 {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWritesAfterCloseFail(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Queue.Send(t.Context(), jobs.QueueWork, []byte("x")); !errors.Is(err, errClosed) {
		t.Errorf("send: %v", err)
	}
	if err := l.Store.SaveJob(t.Context(), &jobs.Job{ID: "x"}); !errors.Is(err, errClosed) {
		t.Errorf("save: %v", err)
	}
}

func TestANewerLedgerIsRefusedAndLeftAsItIs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ledger.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA journal_mode = WAL; PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), dir, Options{})
	var e *jobs.Error
	if !errors.Is(err, jobs.ErrNewer) || !errors.As(err, &e) || e.Hint == "" {
		t.Errorf("open of a newer ledger: %v, want ErrNewer with a hint", err)
	}
	after, err := os.ReadFile(path)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Errorf("the newer ledger was changed (error: %v)", err)
	}
}

func TestADamagedLedgerIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ledger.db"), []byte("this is no database, but long enough to be looked at as one: it is not empty, nor does it begin as one does"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); jobs.CodeOf(err) != jobs.CodeInvalid {
		t.Errorf("open of a damaged ledger: %v, want code invalid", err)
	}
}

func TestADirectoryMayHaveAnyName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%20e&f=ü;")
	l := openAt(t, dir, Options{})
	job := jobs.Job{V: jobs.SchemaVersion, ID: "x"}
	if err := l.Store.SaveJob(t.Context(), &job); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ledger.db")); err != nil {
		t.Errorf("the ledger is not where it should be: %v", err)
	}
}

func TestEverythingIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	c := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	l := openAt(t, dir, Options{Now: c.Now})
	job := jobs.Job{V: jobs.SchemaVersion, ID: "job", Tenant: "tenant", Created: c.Now()}
	if err := l.Store.SaveJob(t.Context(), &job); err != nil {
		t.Fatal(err)
	}
	for _, body := range []string{"in hand", "deferred", "waiting"} {
		if _, err := l.Queue.Send(t.Context(), jobs.QueueWork, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	m, err := l.Queue.Receive(t.Context(), jobs.QueueWork, 2, time.Hour)
	if err != nil || len(m) != 2 {
		t.Fatalf("receive: %v, %v", m, err)
	}
	if err := l.Queue.Defer(t.Context(), c.Now().Add(time.Minute), m[1]); err != nil {
		t.Fatal(err)
	}
	half, err := l.Files.Create(t.Context(), "half")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(half, "made"); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}

	l = openAt(t, dir, Options{Now: c.Now})
	got, err := l.Store.Job(t.Context(), "job")
	if diff := cmp.Diff(job, got); err != nil || diff != "" {
		t.Errorf("job: %v (-saved +read):\n%s", err, diff)
	}
	receives := func() map[string]int {
		m, err := l.Queue.Receive(t.Context(), jobs.QueueWork, 10, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, m := range m {
			n[string(m.Body)] = m.Receives
		}
		return n
	}
	if diff := cmp.Diff(map[string]int{"in hand": 2, "waiting": 1}, receives()); diff != "" {
		t.Errorf("receives at once (-want +got):\n%s", diff)
	}
	c.Pass(time.Minute)
	if diff := cmp.Diff(map[string]int{"deferred": 2}, receives()); diff != "" {
		t.Errorf("receives when its time came (-want +got):\n%s", diff)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("half made objects were left: %v, %v", left, err)
	}
}

func TestOneFailedChangeFailsNobodyElse(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	bad := errors.New("bad")
	// Holding the turn makes the three wait together.
	l.db.turn <- struct{}{}
	results := make(chan error, 3)
	for _, apply := range []func() error{
		func() error { _, err := l.Queue.send.Exec("work", 1, []byte("one")); return err },
		func() error { _, _ = l.Queue.send.Exec("work", 1, []byte("half")); return bad },
		func() error { _, err := l.Queue.send.Exec("work", 1, []byte("two")); return err },
	} {
		go func() { results <- l.db.write(t.Context(), apply) }()
	}
	for waiting := 0; waiting < 3; runtime.Gosched() {
		l.db.mu.Lock()
		waiting = len(l.db.pending)
		l.db.mu.Unlock()
	}
	<-l.db.turn
	failed := 0
	for range 3 {
		if err := <-results; errors.Is(err, bad) {
			failed++
		} else if err != nil {
			t.Error(err)
		}
	}
	m, err := l.Queue.Receive(t.Context(), "work", 10, time.Hour)
	if err != nil || failed != 1 || len(m) != 2 {
		t.Errorf("%d changes failed and %d messages were sent (error: %v); want 1 and 2", failed, len(m), err)
	}
}

func TestAChangeThatDidNotBeginIsWithdrawn(t *testing.T) {
	l := openAt(t, t.TempDir(), Options{})
	l.db.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := l.Queue.Send(ctx, jobs.QueueWork, []byte("x"))
		result <- err
	}()
	for waiting := 0; waiting == 0; runtime.Gosched() {
		l.db.mu.Lock()
		waiting = len(l.db.pending)
		l.db.mu.Unlock()
	}
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("send: %v, want context.Canceled", err)
	}
	<-l.db.turn
	if d, err := l.Queue.Depth(t.Context(), jobs.QueueWork); err != nil || d.Waiting != 0 {
		t.Errorf("%d messages wait (error: %v), want none: the send was given up", d.Waiting, err)
	}
}

func TestNewEntriesTakeThePlaceOfExpiredOnes(t *testing.T) {
	c := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	s := openAt(t, t.TempDir(), Options{Now: c.Now}).Store
	for id, expires := range map[string]time.Time{"kept": {}, "later": c.Now().Add(time.Hour), "soon": c.Now().Add(time.Minute)} {
		if err := s.SaveEntry(t.Context(), &jobs.Entry{Kind: "idem", Owner: "tenant", ID: id, Expires: expires}); err != nil {
			t.Fatal(err)
		}
	}
	c.Pass(2 * time.Minute)
	if err := s.SaveEntry(t.Context(), &jobs.Entry{Kind: "idem", Owner: "tenant", ID: "new"}); err != nil {
		t.Fatal(err)
	}
	var left []string
	for e, err := range s.Entries(t.Context(), "idem", "") {
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, e.ID)
	}
	if diff := cmp.Diff([]string{"kept", "later", "new"}, left); diff != "" {
		t.Errorf("entries left (-want +got):\n%s", diff)
	}
}

func TestEntriesNeedAKindAndAnID(t *testing.T) {
	s := openAt(t, t.TempDir(), Options{}).Store
	for _, e := range []jobs.Entry{{Kind: "idem"}, {ID: "x"}} {
		if err := s.SaveEntry(t.Context(), &e); jobs.CodeOf(err) != jobs.CodeInvalid {
			t.Errorf("save of %+v: %v, want code invalid", e, err)
		}
	}
}

func TestAFolderIsNoObject(t *testing.T) {
	f := openAt(t, t.TempDir(), Options{}).Files
	commit := func(name string) error {
		w, err := f.Create(t.Context(), name)
		if err != nil {
			return err
		}
		_, err = w.Commit(t.Context())
		return err
	}
	if err := commit("a/b"); err != nil {
		t.Fatal(err)
	}
	if err := commit("a/b/c"); jobs.CodeOf(err) != jobs.CodeInvalid {
		t.Errorf("an object below an object: %v, want code invalid", err)
	}
	if err := commit("a"); jobs.CodeOf(err) != jobs.CodeInvalid {
		t.Errorf("an object where a folder is: %v, want code invalid", err)
	}
	// What was refused left nothing behind that stands in the way later.
	if err := f.Delete(t.Context(), "a/b"); err != nil {
		t.Fatal(err)
	}
	if err := commit("a/b/c"); err != nil {
		t.Errorf("after the object was deleted: %v", err)
	}
}

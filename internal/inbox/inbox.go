// Package inbox makes jobs of files that are put into a folder, and puts their results beside them.
//
// It is to a folder what S3's notifications are to the inbox of a bucket: it tells ingest of each upload, by the same message.
// What it does next follows from the folder and the ledger alone, so it can end and begin anywhere.
package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
	"github.com/fanout-inference/fanout/pkg/jobs/localjobs"
)

// Watcher watches one folder. Its fields are set before Run.
type Watcher struct {
	Dir    string
	Tenant string // whose jobs these are
	Ports  jobs.Ports
	Files  *localjobs.Files // has Dir mounted as Folder(Tenant)
	Every  time.Duration    // between two looks; 1 s
	Settle time.Duration    // a file that has not changed for so long, and that nobody is writing, is whole; 3 s
	Log    *slog.Logger

	seen map[string]*sighting // by name
	told map[string]string    // by name: what was said of it
}

// sighting is what is known of a file, to save looking. All of it can be found out again.
type sighting struct {
	version string
	since   time.Time // when it was first seen as it is
	sent    time.Time // when ingest was last told
	looked  time.Time // when its job was last looked at after its results were out
	out     bool      // its results are
}

const (
	tellAgain = time.Minute // after so long without a job ingest is told again
	lookAgain = time.Minute // a job whose results are out may have others after a redrive
)

// Folder is the folder of objects that a tenant's inbox is mounted as.
func Folder(tenant string) string { return "inbox/" + tenant }

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(cmp.Or(w.Every, time.Second))
	defer tick.Stop()
	for {
		w.Look(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Look looks once. What goes wrong with a file is told, once, and tried again the next time.
func (w *Watcher) Look(ctx context.Context) {
	if w.seen == nil {
		w.seen, w.told = map[string]*sighting{}, map[string]string{}
		w.tell(".", localjobs.RemoveBeside(w.Dir)) // what an end in the middle of a result has left
	}
	entries, err := os.ReadDir(w.Dir)
	w.tell(".", err)
	if err != nil {
		return
	}
	there := map[string]bool{}
	for _, e := range entries {
		if ctx.Err() != nil {
			return
		}
		if !candidate(e.Name()) {
			continue
		}
		there[e.Name()] = true
		w.tell(e.Name(), w.file(ctx, e))
	}
	for name := range w.seen {
		if !there[name] {
			delete(w.seen, name)
			delete(w.told, name)
		}
	}
}

// Results stand beside their input, under names that make no jobs.
const (
	outputSuffix = ".output.jsonl"
	errorsSuffix = ".errors.jsonl"
	jobSuffix    = ".job.json"
)

// candidate tells by its name whether a file may be an input. What begins with a dot is still on its way.
func candidate(name string) bool {
	input := strings.HasSuffix(name, ".jsonl") || strings.HasSuffix(name, ".jsonl.gz")
	return input && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, outputSuffix) && !strings.HasSuffix(name, errorsSuffix)
}

// stem begins the names of a file's results: a of a.jsonl, and a.gz of a.jsonl.gz.
func stem(name string) string {
	if plain, ok := strings.CutSuffix(name, ".jsonl.gz"); ok {
		return plain + ".gz"
	}
	return strings.TrimSuffix(name, ".jsonl")
}

// tell says what is wrong with a file, or no longer is, when that has changed.
func (w *Watcher) tell(name string, err error) {
	said, now := w.told[name], ""
	if err != nil {
		now = err.Error()
	}
	if now == said {
		return
	}
	w.told[name] = now
	if err != nil {
		w.Log.Warn("look at the inbox", "file", name, "error", err)
	} else {
		w.Log.Info("look at the inbox: all is well again", "file", name)
	}
}

// file brings one file on.
func (w *Watcher) file(ctx context.Context, e fs.DirEntry) error {
	if !e.Type().IsRegular() {
		return fmt.Errorf("it is no ordinary file: links, pipes and folders are left alone")
	}
	object := Folder(w.Tenant) + "/" + e.Name()
	info, err := w.Files.Stat(ctx, object)
	if errors.Is(err, jobs.ErrNotFound) {
		return nil // gone since
	}
	if err != nil {
		return err
	}
	now := w.Ports.Now()
	s := w.seen[e.Name()]
	if s == nil || s.version != info.Version {
		s = &sighting{version: info.Version, since: now}
		w.seen[e.Name()] = s
	}
	if s.out && now.Sub(s.looked) < lookAgain {
		return nil
	}
	m := jobs.UploadMessage{Upload: info.FileRef, Bytes: info.Bytes}
	j, err := w.Ports.Ledger.Job(ctx, jobs.UploadJob(&m))
	switch {
	case errors.Is(err, jobs.ErrNotFound):
		return w.submit(ctx, e.Name(), s, m)
	case err != nil:
		return err
	case !j.Phase.Ended():
		return nil
	}
	if err := w.publish(ctx, e.Name(), &j); err != nil {
		return fmt.Errorf("put the results beside it: %w", err)
	}
	s.out, s.looked = true, now
	return nil
}

// submit tells ingest of a file that is whole.
func (w *Watcher) submit(ctx context.Context, name string, s *sighting, m jobs.UploadMessage) error {
	now := w.Ports.Now()
	if now.Sub(s.since) < cmp.Or(w.Settle, 3*time.Second) || now.Sub(s.sent) < tellAgain {
		return nil
	}
	if beingWritten(filepath.Join(w.Dir, name)) {
		s.since = now
		return nil
	}
	unsent, err := w.Ports.Queue.Send(ctx, jobs.QueueIngest, jobs.UploadBody(m))
	if err == nil && len(unsent) > 0 {
		err = unsent[0].Err
	}
	if err != nil {
		return fmt.Errorf("tell ingest of it: %w", err)
	}
	s.sent = now
	w.Log.Info("took a file from the inbox", "file", name, "bytes", m.Bytes, "job", jobs.UploadJob(&m))
	return nil
}

package localjobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// How long things are kept: what a table's time to live and the rules of a bucket are told on AWS (docs/aws.md).
const (
	kept      = 60 * 24 * time.Hour // jobs that are over, their objects, inputs and outputs
	scrapKept = 2 * 24 * time.Hour  // what somebody began to make, and did not end
)

// keptFor is how long the objects of a folder are kept after they were written.
var keptFor = map[string]time.Duration{"jobs/": kept, "files/": kept, "uploads/": scrapKept, "dry/": scrapKept, "tmp/": scrapKept}

// tidyJobs is how many jobs are removed at once: others wait for that.
const tidyJobs = 20

// Tidy removes what is no longer kept. It may be called at any time; nobody else does it here.
func (l *Local) Tidy(ctx context.Context) error {
	now := l.Store.now()
	var failed []error
	if err := l.Store.tidy(ctx, now.Add(-kept)); err != nil {
		failed = append(failed, fmt.Errorf("remove old jobs: %w", err))
	}
	for folder, life := range keptFor {
		if err := l.Files.tidy(ctx, folder, now.Add(-life)); err != nil {
			failed = append(failed, fmt.Errorf("remove old objects: %w", err))
		}
	}
	return errors.Join(failed...)
}

func (f *Files) tidy(ctx context.Context, folder string, before time.Time) error {
	for info, err := range f.List(ctx, folder) {
		if err != nil {
			return err
		}
		if info.At.After(before) {
			continue
		}
		if err := f.Delete(ctx, info.Name); err != nil {
			return err
		}
	}
	return nil
}

// tidy removes jobs that are over and were made before a time, with all records of theirs. Entries that have expired go when
// others are made.
func (s *Store) tidy(ctx context.Context, before time.Time) (err error) {
	for removed := int64(tidyJobs); err == nil && removed == tidyJobs; {
		err = s.db.write(ctx, func() error {
			for _, drop := range []*sql.Stmt{s.dropChunks, s.dropSplits} {
				if _, err := drop.Exec(nanos(before), tidyJobs); err != nil {
					return err
				}
			}
			r, err := s.dropJobs.Exec(nanos(before), tidyJobs)
			if err != nil {
				return err
			}
			removed, err = r.RowsAffected()
			return err
		})
	}
	return err
}

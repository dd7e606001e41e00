package localjobs

import (
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestDirectoryOfEachOlderLayoutKeepsWhatItHolds(t *testing.T) {
	for layout := 1; layout < schemaVersion; layout++ {
		dir := t.TempDir()
		db, err := sql.Open("sqlite", filepath.Join(dir, "ledger.db"))
		if err != nil {
			t.Fatal(err)
		}
		for _, step := range schema[:layout] {
			if _, err := db.Exec(step); err != nil {
				t.Fatal(err)
			}
		}
		_, err = db.Exec(`INSERT INTO entries (kind, owner, id, revision, expires, body) VALUES ('gate', 'up', 'm', 7, 0, '{"width":3}'); PRAGMA user_version = 1`)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}

		for range 2 { // the second time there is nothing to bring up to date
			local, err := Open(t.Context(), dir, Options{})
			if err != nil {
				t.Fatalf("open layout %d: %v", layout, err)
			}
			e, err := local.Store.Entry(t.Context(), "gate", "up", "m")
			if err != nil || e.Revision != 7 || string(e.Body) != `{"width":3}` || !e.Created.IsZero() {
				t.Errorf("layout %d: entry %+v, %v", layout, e, err)
			}
			listed := jobs.Entry{Kind: "gate", Owner: "up", ID: time.Now().String(), Created: time.Now()}
			if err := local.Store.SaveEntry(t.Context(), &listed); err != nil {
				t.Errorf("layout %d: save: %v", layout, err)
			}
			if err := local.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

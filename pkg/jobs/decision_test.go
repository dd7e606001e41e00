package jobs

import (
	"strings"
	"testing"
)

// decisions is a decision table that is tested whole. A row is named by one letter a column, "*" for any. Every
// combination of letters must fit exactly one row, and every row some combination.
type decisions[T comparable] struct {
	t    *testing.T
	rows map[string]T
	used map[string]bool
}

func decisionTable[T comparable](t *testing.T, rows map[string]T) *decisions[T] {
	t.Helper()
	d := &decisions[T]{t: t, rows: rows, used: map[string]bool{}}
	t.Cleanup(func() {
		for row := range rows {
			if !d.used[row] {
				t.Errorf("row %q fits no combination", row)
			}
		}
	})
	return d
}

// check compares what is decided for every combination of the columns' letters with the table.
func (d *decisions[T]) check(columns []string, decide func(key string) T) {
	d.t.Helper()
	keys := []string{""}
	for _, letters := range columns {
		var longer []string
		for _, key := range keys {
			for _, letter := range letters {
				longer = append(longer, key+string(letter))
			}
		}
		keys = longer
	}
	for _, key := range keys {
		want, ok := d.find(key)
		if got := decide(key); ok && got != want {
			d.t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}

func (d *decisions[T]) find(key string) (want T, ok bool) {
	d.t.Helper()
	var fits []string
	for row := range d.rows {
		if fitsRow(row, key) {
			fits = append(fits, row)
			d.used[row] = true
		}
	}
	if len(fits) != 1 {
		d.t.Errorf("%s fits %d rows: %s", key, len(fits), strings.Join(fits, " "))
		return want, false
	}
	return d.rows[fits[0]], true
}

func fitsRow(row, key string) bool {
	if len(row) != len(key) {
		return false
	}
	for i := range row {
		if row[i] != '*' && row[i] != key[i] {
			return false
		}
	}
	return true
}

package cli

import (
	"errors"
	"slices"
	"testing"

	"github.com/fanout-inference/fanout/pkg/batchapi"
)

func TestAPurgeIsRepeatedUntilAllIsDone(t *testing.T) {
	broken := errors.New("gone")
	for name, row := range map[string]struct {
		most   int64
		told   []batchapi.Purged
		err    error // with the last
		want   int64
		asked  []int64
		wantIs error
	}{
		"at once":           {0, []batchapi.Purged{{Purged: 3}}, nil, 3, []int64{0}, nil},
		"in three calls":    {0, []batchapi.Purged{{Purged: 3, More: true}, {Purged: 4, More: true}, {Purged: 1}}, nil, 8, []int64{0, 0, 0}, nil},
		"at most five":      {5, []batchapi.Purged{{Purged: 3, More: true}, {Purged: 2, More: true}}, nil, 5, []int64{5, 2}, nil},
		"no progress":       {0, []batchapi.Purged{{More: true}}, nil, 0, []int64{0}, nil},
		"only counted":      {0, []batchapi.Purged{{Purged: 3, More: true, DryRun: true}}, nil, 3, []int64{0}, nil},
		"broken in between": {0, []batchapi.Purged{{Purged: 3, More: true}, {}}, broken, 3, []int64{0, 0}, broken},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []int64
			got, err := purgeAll(row.most, func(most int64) (batchapi.Purged, error) {
				asked = append(asked, most)
				if n := len(asked); n < len(row.told) {
					return row.told[n-1], nil
				}
				return row.told[len(asked)-1], row.err
			})
			if got.Purged != row.want || !slices.Equal(asked, row.asked) || !errors.Is(err, row.wantIs) {
				t.Errorf("purged %+v, asked %v, %v", got, asked, err)
			}
		})
	}
}

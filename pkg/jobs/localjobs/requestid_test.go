package localjobs

import (
	"strings"
	"testing"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

func TestEachAnswerHasARequestIDWhereTheWireWantsOne(t *testing.T) {
	for _, wanted := range []bool{false, true} {
		inSteps(t, someFail, func(t *testing.T, s *stepwise) {
			s.must(s.submit(10, chunksOf(4)))
			s.worker = jobs.NewWorker(s.Ports, jobs.WorkerOptions{
				Route: func(string) (string, jobs.Upstream) { return "upstream", steppedUpstream{s} }, RequestIDs: wanted,
			})
			s.run(1 << 40)
			all, _, _ := s.published()
			for _, line := range all {
				if has := strings.Contains(line, `"request_id":"req_`); has != wanted {
					t.Errorf("ids wanted: %v; %s", wanted, line)
				}
			}
		})
	}
}

package jobs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func inspectAll(files *memFiles, input []byte, o InspectOptions) (Inspection, []Violation, error) {
	o.Endpoint, o.Prefix = chatURL, "tmp/"
	var all []Violation
	found, err := Inspect(context.Background(), files, files.put("in", input), int64(len(input)), o, func(v Violation) error {
		all = append(all, v)
		return nil
	})
	return found, all, err
}

func TestInspectReportsWhatTheReferenceFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		input := drawInput(t)
		cut := drawCut(t, len(input))
		lines := refLines(input, chatURL, cut.LineBytes)
		files := newMemFiles()
		found, got, err := inspectAll(files, input, InspectOptions{Cut: cut, Parallel: rapid.IntRange(0, 4).Draw(t, "parallel")})
		if err != nil {
			t.Fatal(err)
		}
		var want []Violation
		want1 := Inspection{Lines: int64(len(lines)), Bytes: int64(len(input)), Models: map[string]int64{}}
		for i, l := range lines {
			if !l.blank {
				want1.Items++
			}
			if l.code != "" {
				want = append(want, Violation{Code: l.code, Param: l.param, Line: int64(i + 1)})
			} else if !l.blank {
				want1.Models[l.model]++
			}
		}
		losers := refDuplicates(lines)
		for i, l := range lines {
			if _, lost := losers[i]; lost && l.code == "" {
				want = append(want, Violation{Code: ViolationDuplicate, Param: "custom_id", Line: int64(i + 1)})
			}
		}
		if want1.Items == 0 {
			want = append(want, Violation{Code: ViolationEmpty})
		}
		want1.Violations = int64(len(want))
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(Violation{}, "Message")); d != "" {
			t.Fatalf("violations (-want +got):\n%s", d)
		}
		if d := cmp.Diff(want1, found); d != "" {
			t.Fatalf("inspection (-want +got):\n%s", d)
		}
		if len(files.objects) != 1 {
			t.Fatalf("%d objects are left, want the input alone", len(files.objects))
		}
	})
}

func TestInspectNamesTheEarlierLineOfADuplicate(t *testing.T) {
	input := "\n" + request("", "") + "\n\n" + request("custom_id", `"b"`) + "\n" + request("custom_id", `"\u0061"`) + "\n"
	_, got, err := inspectAll(newMemFiles(), []byte(input), InspectOptions{})
	if err != nil || len(got) != 1 || got[0].Line != 5 || !strings.Contains(got[0].Message, "the same as in line 2") {
		t.Errorf("violations %+v, error %v", got, err)
	}
}

func TestInspectEndsWithTheErrorOfReportAndCleansUp(t *testing.T) {
	files := newMemFiles()
	input := []byte(strings.Repeat(request("", "")+"\nx\n", 2000))
	stop := errors.New("stop")
	for after := range 3 {
		n := 0
		_, err := Inspect(context.Background(), files, files.put("in", input), int64(len(input)),
			InspectOptions{Endpoint: chatURL, Cut: smallCut, Prefix: "tmp/", Parallel: 4}, func(Violation) error {
				if n++; n > after*700 {
					return stop
				}
				return nil
			})
		if !errors.Is(err, stop) || len(files.objects) != 1 {
			t.Errorf("after %d: error %v, %d objects left", after, err, len(files.objects))
		}
	}
}

func TestInspectEndsWithWhatIsWrongWithTheWhole(t *testing.T) {
	input := []byte(strings.Repeat("x\n", 2*MaxSplitChunks))
	_, got, err := inspectAll(newMemFiles(), input, InspectOptions{Cut: Cut{SplitBytes: int64(len(input)), ChunkLines: 1, ChunkBytes: 1, LineBytes: 1000}})
	if err != nil || len(got) != 2*MaxSplitChunks+1 {
		t.Fatalf("%d violations, error %v", len(got), err)
	}
	if last := got[len(got)-1]; last.Code != ViolationTasks || last.Line != MaxSplitChunks+1 {
		t.Errorf("last violation %+v", last)
	}
}

func ExampleInspect() {
	files := newMemFiles()
	input := []byte(`{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"x"}}
{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"y"}}
{"custom_id":"b","method":"POST","url":"/v1/embeddings","body":{}}
`)
	found, err := Inspect(context.Background(), files, files.put("in.jsonl", input), int64(len(input)),
		InspectOptions{Endpoint: "/v1/embeddings", Prefix: "tmp/"}, func(v Violation) error {
			fmt.Printf("line %d: %s: %s\n", v.Line, v.Code, v.Message)
			return nil
		})
	fmt.Println(found.Items, "items,", found.Violations, "violations", err)
	// Output:
	// line 3: invalid_request: body.model is missing; name the model that is to answer
	// line 2: duplicate_custom_id: custom_id is the same as in line 1; each line needs one of its own
	// 3 items, 2 violations <nil>
}

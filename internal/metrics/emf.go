package metrics

import (
	"encoding/json"
	"io"
	"time"
)

// CloudWatch's embedded metric format: a line of JSON that announces metrics and dimensions beside their values. A metric may
// have up to 100 values in a line, which makes a distribution of it.
// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

const mostValues = 100

// The units used here.
const (
	count   = "Count"
	seconds = "Seconds"
)

type dimension struct{ name, value string }

// line is one line to be.
type line struct {
	of     []dimension
	units  []announced
	values map[string]any
}

type announced struct{ Name, Unit string }

func newLine(of ...dimension) *line { return &line{of: of, values: map[string]any{}} }

// add adds a metric: a number, or up to mostValues of them.
func (l *line) add(name, unit string, value any) *line {
	l.units = append(l.units, announced{name, unit})
	l.values[name] = value
	return l
}

func (l *line) write(to io.Writer, at time.Time) {
	var names []string
	all := l.values
	for _, d := range l.of {
		names = append(names, d.name)
		all[d.name] = d.value
	}
	all["_aws"] = map[string]any{"Timestamp": at.UnixMilli(), "CloudWatchMetrics": []any{
		map[string]any{"Namespace": Namespace, "Dimensions": [][]string{names}, "Metrics": l.units},
	}}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // numbers and texts always encode, and no number here is infinite
	}
	_, _ = to.Write(append(text, '\n')) // a log that cannot be written has no other place to say so
}

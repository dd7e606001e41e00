package batchapi

import (
	"slices"
	"strconv"
	"strings"

	"github.com/fanout-inference/fanout/pkg/jobs"
)

// optionPrefix begins the metadata keys that are options: they ride where official clients let anything pass.
const optionPrefix = "fanout_"

// maxCostOption means nothing where tokens have no prices.
const maxCostOption = optionPrefix + "max_cost_usd"

// option is what one of them may be, and what it does.
type option struct {
	key   string
	takes string // for the sentence
	set   func(j *jobs.Job, value string) bool
}

// options is the table of all there are.
var options = []option{
	{"fanout_on_invalid", "fail, which is the default, or skip", func(j *jobs.Job, v string) bool {
		j.OnInvalid = jobs.OnInvalid(v)
		return j.OnInvalid == jobs.InvalidFails || j.OnInvalid == jobs.InvalidSkips
	}},
	{"fanout_chunk_items", "a whole number from 1 to " + strconv.Itoa(jobs.MaxChunkLines), func(j *jobs.Job, v string) bool {
		return within(v, 1, jobs.MaxChunkLines, &j.Cut.ChunkLines)
	}},
	{"fanout_max_attempts", "a whole number from 1 to 100", func(j *jobs.Job, v string) bool {
		return within(v, 1, 100, &j.MaxCalls)
	}},
	{"fanout_tolerated_failure_pct", "a number from 0 to 100", func(j *jobs.Job, v string) bool {
		pct, err := strconv.ParseFloat(v, 64)
		j.Tolerated = &pct
		return err == nil && pct >= 0 && pct <= 100
	}},
	{maxCostOption, "an amount of US dollars above 0", func(j *jobs.Job, v string) bool {
		usd, err := strconv.ParseFloat(v, 64)
		j.MaxCost = jobs.USD(usd)
		return err == nil && usd <= 1e9 && j.MaxCost > 0
	}},
}

func within(s string, least, most int, to *int) bool {
	n, err := strconv.Atoi(s)
	*to = n
	return err == nil && n >= least && n <= most
}

// applyOptions does what the options in the metadata say.
func applyOptions(j *jobs.Job, metadata map[string]string) error {
	j.OnInvalid = jobs.InvalidFails
	for key, value := range metadata {
		if !strings.HasPrefix(key, optionPrefix) {
			continue
		}
		i := slices.IndexFunc(options, func(o option) bool { return o.key == key })
		if i < 0 {
			return invalid("metadata."+key, "Invalid 'metadata.%s': there is no such option; the options are %s.", key, optionKeys())
		}
		if !options[i].set(j, value) {
			return invalid("metadata."+key, "Invalid 'metadata.%s': '%.40s' is not %s.", key, value, options[i].takes)
		}
	}
	return nil
}

func optionKeys() string {
	var keys []string
	for _, o := range options {
		keys = append(keys, o.key)
	}
	return strings.Join(keys, ", ")
}

package jobs

// Step is what is to be done next for a split or a job.
type Step string

// The steps.
const (
	StepNone     Step = ""         // nothing, now
	StepScan     Step = "scan"     // validate and cut a split
	StepCheck    Step = "check"    // duplicate ids across splits; the verdict
	StepDispatch Step = "dispatch" // send a split's chunk messages
	StepFold     Step = "fold"     // recompute totals from the facts
	StepCompact  Step = "compact"  // parts into pieces
	StepFinalize Step = "finalize" // pieces into files
	StepNotify   Step = "notify"   // tell the hooks that it has ended
)

// Owner is the queue whose handler does the step.
func (s Step) Owner() QueueName {
	switch s {
	case StepScan, StepCheck, StepDispatch:
		return QueueIngest
	default:
		return QueueAggregate
	}
}

// Survey is what all splits of a job say together.
type Survey struct {
	Scanned bool       // every split is scanned
	Sent    bool       // the messages of every split are
	Ready   bool       // every split is settled, and compacted at the generation of its fold
	Fold    Generation // of the splits' folds
	Totals  Totals     // the sum of theirs
}

// NextForSplit says what is to be done for a split; folded tells that this visit has just folded it, so that its fold is
// of the newest facts. The first row that matches wins.
func NextForSplit(j *Job, s *Split, folded bool) Step {
	switch {
	case j.Phase == PhaseFailed: // ended without files
		return StepNone
	case s.Scanned == nil && !j.Stopped():
		return StepScan
	case j.Checked == nil: // the job's turn; or it was stopped before anything could be dispatched
		return StepNone
	case !s.Dispatched && !j.Stopped():
		return StepDispatch
	case !folded:
		return StepFold
	case s.Settled && !s.compacted():
		return StepCompact
	default:
		return StepNone
	}
}

// NextForJob says what is to be done for a job as a whole.
func NextForJob(j *Job, all Survey) Step {
	switch {
	case j.untold():
		return StepNotify
	case j.Phase == PhaseFailed:
		return StepNone
	case j.Checked == nil && j.Stopped():
		if j.Phase.Ended() {
			return StepNone
		}
		return StepFinalize // nothing to publish
	case j.Checked == nil:
		if all.Scanned {
			return StepCheck
		}
		return StepNone
	case !all.Sent && !j.Stopped():
		return StepDispatch
	case all.Ready && (j.Outputs == nil || j.Outputs.Of != all.Fold || !j.Phase.Ended()):
		return StepFinalize
	case j.Fold != all.Fold || j.Totals.Dead != all.Totals.Dead: // a purge makes no files anew
		return StepFold
	default:
		return StepNone
	}
}

func (s *Split) compacted() bool { return s.Compacted && s.PiecesOf == s.Fold }

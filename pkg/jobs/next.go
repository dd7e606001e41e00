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
)

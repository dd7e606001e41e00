package jobs

import (
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write docs/states.md instead of comparing")

// move is a legal move of a job, and what causes it.
type move struct {
	from, to Phase
	label    string // in the diagram
	cause    string
	by       []string // the functions that decide it
}

// Those that stop a job in time, and those that find it broken.
var (
	stopping = []string{"CancelJob", "ExpireJob"}
	failing  = []string{"Ingest.check", "Ingest.scan", "attempt.readItems", "Aggregate.compact", "visitor.giveUp"}
)

var causes = []move{
	{"", PhaseValidating, "submitted", "It is opened.", []string{"Submit", "openFailed"}},
	{PhaseValidating, PhaseInProgress, "checked", "All splits are scanned, and the check finds nothing that forbids the job.", []string{"Ingest.check"}},
	{PhaseValidating, PhaseFinalizing, "stopped", "It is cancelled, or its time is over, or it fails: the check forbids it, its input was changed, a step keeps dying. Or it is the job of an upload " +
		"that nothing can be made of, which has failed when it is opened.", slices.Concat(stopping, []string{"Ingest.check", "Ingest.scan", "visitor.giveUp", "openFailed"})},
	{PhaseInProgress, PhaseFinalizing, "settled, or stopped", "Every split is settled and compacted. Or it is cancelled, or its time is over, or it fails: its input was changed, " +
		"a step keeps dying, or the check forbids it (one that expired before its check and was reopened).", slices.Concat([]string{"Aggregate.finalize"}, stopping, failing)},
	{PhaseFinalizing, PhaseInProgress, "redriven", "The message of a dead chunk comes back from the dead letters.", []string{"Ports.reopening"}},
	{PhaseFinalizing, PhaseCompleted, "published", "Its files are there, and nothing has stopped it.", []string{"Aggregate.finalize"}},
	{PhaseFinalizing, PhaseCancelled, "published", "Its files are there, or it was never checked; its stop says cancelled.", []string{"Aggregate.finalize"}},
	{PhaseFinalizing, PhaseExpired, "published", "Its files are there, or it was never checked; its stop says expired.", []string{"Aggregate.finalize"}},
	{PhaseFinalizing, PhaseFailed, "failed", "Its stop says failed: within the save that writes the stop, without files.", append([]string{"openFailed"}, failing...)},
	{PhaseCompleted, PhaseInProgress, "redriven, or reopened", "The message of a dead chunk comes back from the dead letters. Or what was given up is asked for again.", []string{"Ports.reopening", "Reopen"}},
	{PhaseExpired, PhaseInProgress, "reopened", "What was given up, or had no time left, is asked for again.", []string{"Reopen"}},
}

func TestEveryLegalMoveHasItsCause(t *testing.T) {
	type pair [2]Phase
	legal, told := map[pair]bool{}, map[pair]bool{}
	for from, row := range moves {
		for _, to := range row {
			legal[pair{from, to}] = true
		}
		if from != "" && !slices.Contains(allPhases, from) {
			t.Errorf("%s is no phase that the tests know", from)
		}
	}
	for _, m := range causes {
		if told[pair{m.from, m.to}] {
			t.Errorf("from %q to %s: told twice", m.from, m.to)
		}
		told[pair{m.from, m.to}] = true
		if m.label == "" || strings.ContainsAny(m.label, ":;#") || m.cause == "" {
			t.Errorf("from %q to %s: no cause, or no label that a diagram takes", m.from, m.to)
		}
	}
	if d := gocmp.Diff(legal, told); d != "" {
		t.Errorf("moves (-legal +told):\n%s", d)
	}
}

// TestMovesAreMadeByTheirCauses looks into the code: who moves a job, or has it moved by one who only carries that out, is a
// cause, and nobody else is. Only moveTo, which knows the table, sets a phase.
func TestMovesAreMadeByTheirCauses(t *testing.T) {
	carryOut := map[string]string{"writeStop": "writeStop", "Job.reopen": "reopen", "Job.opened": "opened"}
	functions := functionsOf(t)
	movers, told := map[string]bool{}, map[string]bool{}
	called := []string{"moveTo"}
	for name, f := range functions {
		if f.setsPhase != (name == "Job.moveTo") {
			t.Errorf("%s sets the phase of a job: %t", name, f.setsPhase)
		}
	}
	for len(called) > 0 {
		for name, f := range functions {
			if !slices.Contains(f.calls, called[0]) {
				continue
			}
			if through, only := carryOut[name]; only {
				called = append(called, through)
			} else {
				movers[name] = true
			}
		}
		called = called[1:]
	}
	for _, m := range causes {
		for _, name := range m.by {
			told[name] = true
		}
	}
	if d := gocmp.Diff(movers, told); d != "" {
		t.Errorf("functions (-that move jobs +that are told to):\n%s", d)
	}
}

// function is one of this package, as far as moves go.
type function struct {
	file      string
	calls     []string // names, without receiver or package
	setsPhase bool
}

// functionsOf are the package's functions. Methods are named with their receiver.
func functionsOf(t *testing.T) map[string]function {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	functions := map[string]function{}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if decl, ok := d.(*ast.FuncDecl); ok {
				f := function{file: file.Name()}
				ast.Inspect(decl, f.note)
				functions[nameOf(decl)] = f
			}
		}
	}
	return functions
}

func nameOf(decl *ast.FuncDecl) string {
	if decl.Recv == nil {
		return decl.Name.Name
	}
	receiver := decl.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	return fmt.Sprint(receiver) + "." + decl.Name.Name
}

// note looks at a node of the function's syntax.
func (f *function) note(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CallExpr:
		switch called := n.Fun.(type) {
		case *ast.Ident:
			f.calls = append(f.calls, called.Name)
		case *ast.SelectorExpr:
			f.calls = append(f.calls, called.Sel.Name)
		}
	case *ast.AssignStmt:
		for _, left := range n.Lhs {
			field, ok := left.(*ast.SelectorExpr)
			f.setsPhase = f.setsPhase || ok && field.Sel.Name == "Phase"
		}
	}
	return true
}

// row is a row of a table of which the first that matches wins: patterns of keys, as in a decisionTable.
type row[T comparable] struct {
	patterns string
	is       T
	when     string
	then     string
}

// Keys of standings: done, dead, buried, the message's burial number beside the record's, a live lease, not due.
var standingRows = []row[standing]{
	{"1*****", standDone, "every item has its outcome", "The message is done with; aggregate is told."},
	{"*1*=**", standRedriven, "it is dead, and the message has its burial number", "It was redriven: its split names it as reopening, its job is set in progress, its items are forgiven, and it is claimed."},
	{"*10***", standUnburied, "it is dead, and nothing says that the dead letters have it", "The burial was interrupted: the message goes to the dead letters, and that is noted."},
	{"*1****", standStale, "it is dead and buried", "The message is from before the burial: it is done with."},
	{"****1*", standLeased, "a lease is live", "The message is put off until the lease ends."},
	{"*****1", standPutOff, "it is deferred, and not due", "The message is put off until it is."},
	{"******", standOpen, "none of these", "It is claimed."},
}

// Keys of fates: d = every item is done, s = every open one is spent, o = some are open; and why the attempt stopped.
var fateRows = []row[fate]{
	{"d*", fateDone, "every item has its outcome", "The message is done with; aggregate is told."},
	{"*j", fateReleased, "its job was stopped", "The same. What is open gets an error line when its split is compacted."},
	{"s*", fateDead, "every open item is spent", "Its burial number rises, the message goes to the dead letters with it, and that is noted."},
	{"*p *h", fateParked, "its job or a gate is paused, or every call was refused, which pauses its job", "The message is done with; the ledger has it sent again when the pause ends, or to see whether it can."},
	{"*d", fateReturned, "its process ends, or is out of time", "The message is shown again at once."},
	{"**", fateDeferred, "none of these", "The message is put off, for longer with each attempt that brings nothing."},
}

func TestStandingsAreTold(t *testing.T) {
	now := time.Unix(100, 0)
	checkRows(t, standingRows, []string{"01", "01", "01", "<=>", "01", "01"}, func(key string) standing {
		c := Chunk{Lines: 3, Burial: 4, Dead: key[1] == '1', Buried: key[2] == '1', NotBefore: now.Add(time.Duration(key[5] - '0'))}
		if key[0] == '1' {
			c.Resolved = AllBits(3)
		}
		return standingOf(&c, &ChunkMessage{Burial: 4 + int(key[3]) - '='}, now, key[4] == '1')
	})
}

func TestFatesAreTold(t *testing.T) {
	reasons := map[byte]stopReason{'-': stopNot, 'd': stopDrain, 'j': stopJob, 'w': stopWeather, 'p': stopPaused, 'h': stopHeld, 'l': stopLost, 'b': stopBroken}
	checkRows(t, fateRows, []string{"dso", "-djwphlb"}, func(key string) fate {
		a, c := endOf(key[0], reasons[key[1]])
		return a.fateOf(c)
	})
}

// checkRows checks every combination of the columns' letters, and that every row is of some use.
func checkRows[T comparable](t *testing.T, rows []row[T], columns []string, decide func(key string) T) {
	t.Helper()
	keys, used := []string{""}, map[T]bool{}
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
		i := slices.IndexFunc(rows, func(r row[T]) bool {
			return slices.ContainsFunc(strings.Fields(r.patterns), func(pattern string) bool { return fitsRow(pattern, key) })
		})
		used[rows[i].is] = true
		if got := decide(key); got != rows[i].is {
			t.Errorf("%s: the code says %v, the table %v", key, got, rows[i].is)
		}
	}
	if len(used) != len(rows) {
		t.Errorf("of %d rows %d are ever the first that matches", len(rows), len(used))
	}
}

func TestStatesDiagram(t *testing.T) {
	const page = "../../docs/states.md"
	want := statesPage(movesTold(t), functionsOf(t))
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Error(err)
	}
	if d := gocmp.Diff(strings.Split(want, "\n"), strings.Split(string(got), "\n")); d != "" {
		t.Errorf("docs/states.md is not of this code; write it with: go test ./pkg/jobs -run TestStatesDiagram -update\n(-want +got):\n%s", d)
	}
}

// movesTold are the legal moves, from phase to phase, with their causes.
func movesTold(t *testing.T) (told []move) {
	t.Helper()
	for _, from := range slices.Concat([]Phase{""}, allPhases) {
		for _, to := range moves[from] {
			i := slices.IndexFunc(causes, func(m move) bool { return m.from == from && m.to == to })
			if i < 0 {
				t.Fatalf("from %q to %s: no cause", from, to)
			}
			told = append(told, causes[i])
		}
	}
	return told
}

func statesPage(legal []move, functions map[string]function) string {
	var s strings.Builder
	s.WriteString(`# States

Written by ` + "`go test ./pkg/jobs -run TestStatesDiagram -update`" + ` from tables that tests hold against the code. Change those, not this page.

## A job

The phases are the wire's statuses. A stop (cancelled, expired, failed) is a fact that is written in any open phase; the way always leads through
finalizing, and the fact picks the end. The table is ` + "`moves` in [`job.go`](../pkg/jobs/job.go)" + `.

` + "```mermaid\nstateDiagram-v2\n")
	for _, m := range legal {
		fmt.Fprintf(&s, "    %s --> %s: %s\n", cmp.Or(string(m.from), "[*]"), m.to, m.label)
	}
	for _, p := range allPhases {
		if len(moves[p]) == 0 {
			fmt.Fprintf(&s, "    %s --> [*]\n", p)
		}
	}
	s.WriteString("```\n\n| from | to | when | who decides it |\n|---|---|---|---|\n")
	for _, m := range legal {
		var by []string
		for _, name := range m.by {
			by = append(by, fmt.Sprintf("[`%s`](../pkg/jobs/%s)", name, functions[name].file))
		}
		fmt.Fprintf(&s, "| %s | %s | %s | %s |\n", cmp.Or(m.from, "–"), m.to, m.cause, strings.Join(by, ", "))
	}
	s.WriteString(`
## A chunk, to a message about it

What a chunk's record says to a message; the first row that matches wins. It is ` + "`standingOf` in [`claim.go`](../pkg/jobs/claim.go)" + `. While the job is paused, a
chunk that would be claimed is parked, due or not. When the job takes no more work, an interrupted burial is finished, a redriven message is buried
again, and any other message is done with.

| the record says | standing | what follows |
|---|---|---|
`)
	writeRows(&s, standingRows)
	s.WriteString(`
## A chunk, at the end of an attempt

What becomes of a chunk when a worker gives its claim up; the first row that matches wins. It is ` + "`fateOf` in [`settle.go`](../pkg/jobs/settle.go)" + `. A worker that has lost
its claim to another only turns bits on.

| the chunk | fate | what follows |
|---|---|---|
`)
	writeRows(&s, fateRows)
	return s.String()
}

func writeRows[T comparable](s *strings.Builder, rows []row[T]) {
	for _, r := range rows {
		fmt.Fprintf(s, "| %s | `%v` | %s |\n", r.when, r.is, r.then)
	}
}

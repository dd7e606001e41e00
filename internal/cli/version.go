package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is set by the linker of a release build:
// -ldflags "-X github.com/fanout-inference/fanout/internal/cli.release=v1.2.3".
var release string

// version says which fanout this is, as exactly as the build knows.
func version() string {
	name, commit := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		name, commit = buildVersion(info)
	}
	if release != "" {
		name = release
	}
	if commit != "" {
		name += " (commit " + commit + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", name, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// buildVersion reads the version of the main module and the short commit, with a "+" if the tree had changes. Both are
// missing from builds with -buildvcs=false.
func buildVersion(info *debug.BuildInfo) (name, commit string) {
	name = info.Main.Version
	if name == "" {
		name = "(devel)"
	}
	changed := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				changed = "+"
			}
		}
	}
	if commit == "" {
		return name, ""
	}
	return name, commit + changed
}

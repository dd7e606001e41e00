// Package release says which fanout this is.
package release

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// name is set by the linker of a release build:
// -ldflags "-X github.com/fanout-inference/fanout/internal/release.name=v1.2.3".
var name string

// Version says which fanout this is, as exactly as the build knows.
func Version() string {
	module, commit := "(devel)", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		module, commit = ofBuild(info)
	}
	if name != "" {
		module = name
	}
	if commit != "" {
		module += " (commit " + commit + ")"
	}
	return fmt.Sprintf("%s %s %s/%s", module, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// ofBuild reads the version of the main module and the short commit, with a "+" if the tree had changes. Both are
// missing from builds with -buildvcs=false.
func ofBuild(info *debug.BuildInfo) (module, commit string) {
	module = info.Main.Version
	if module == "" {
		module = "(devel)"
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
		return module, ""
	}
	return module, commit + changed
}

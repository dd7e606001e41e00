// Package polltest is what every poll.Source must keep, as tests, and a queue in memory that keeps it.
package polltest

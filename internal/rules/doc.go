// Package rules holds the rules of the house as tests: which package may know which.
package rules

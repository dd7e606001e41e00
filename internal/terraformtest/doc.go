// Package terraformtest plans the Terraform module without an account, and holds the rules that its plans must keep.
//
// Where the registry cannot be reached the AWS provider is a stand-in (Provider), which knows names and types from
// schemas.json and nothing else: no value of an enumeration, no ARN, no rule that spans arguments. With
// FANOUT_TEST_AWS_PROVIDER=1 the same tests run with the real one.
package terraformtest

// Package awsjobs keeps jobs in DynamoDB, SQS and S3.
//
// It keeps the promises that the local driver keeps, with what these services promise: records are saved by conditional
// writes, one request each, and read consistently; a queue delivers at least once; an object is seen whole or not at all.
// There are no transactions, no streams and no scans.
//
// It makes requests with the clients that it is given, and leaves retries to them. It reads no environment.
package awsjobs

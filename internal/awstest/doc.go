// Package awstest runs servers that speak the protocols of DynamoDB, SQS and S3, for tests of the AWS driver.
//
// Others wrote the servers, so they do not share our misunderstandings. Each is started by the first test that asks for it,
// once a test process, on a free port of 127.0.0.1, and dies with that process however it ends. They are pinned: npm
// packages by servers/package-lock.json, versitygw by its version; what is missing is installed below .cache, which needs
// npm and Go. `go run ./internal/awstest/install` does so beforehand. A server that cannot be installed, does not answer
// within 30 s of its start, or ends during a test fails the test, with the last that it said. Nothing is skipped.
//
// With FANOUT_TEST_ENDPOINT_DYNAMODB, _SQS or _S3 set to a URL, the tests of that service use it instead, with credentials and
// region from where the SDK looks for them. Tables, queues and buckets have random names and are dropped at the end of their
// test. A client's Options can be passed to New again, to count or to disturb its requests.
//
// What the servers cannot do, and matters to us:
//
//   - dynalite (DynamoDB) has conditional writes, both indexes, paging, batches and the limit of 400 KB. It ignores
//     ReturnValuesOnConditionCheckFailure: the old item comes back empty, so the driver reads it. It has no transactions, no
//     streams and no UpdateTimeToLive, none of which we need, and nothing expires. Tables are kept in memory.
//   - fauxqs (SQS) counts receives and moves to dead letters exactly, also after a visibility of 0, and is fast. It reports
//     success for a receipt that it never gave, takes MessageGroupId but does not return it, has no move tasks
//     (InvalidAction) and speaks JSON only.
//   - local-aws-sqs (SQS) has just those: wrong receipts fail entry by entry, MessageGroupId comes back, move tasks move. But
//     setting a visibility to 0 adds to the receive count, and it reads AttributeNames only, not
//     MessageSystemAttributeNames: ask for both.
//   - versitygw (S3) checks signatures and checksums, and has conditional writes (one winner of 20), multipart uploads with
//     the minimum of 5 MiB, UploadPartCopy and presigned URLs that expire. It keeps objects in files: a name cannot be both
//     an object and a directory of others. As the checksum of a range that is copied it hands out that of the whole source,
//     where source and upload have the same algorithm. No events, no lifecycle.
//
// None of them checks IAM policies, throttles, or delivers S3 events to a queue.
package awstest

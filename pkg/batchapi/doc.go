// Package batchapi is fanout over HTTP: OpenAI's Batch, Files and Uploads API as official clients know it, what fanout adds
// to it, and a client.
//
// [New] makes one http.Handler, the same in `fanout serve` and in the api function. [Client] calls it. The types of the wire
// stand in wire.go; they are converted from those of package jobs in one place each.
//
// What a request may do stands in three tables: the routes with their scopes (routes.go), the answers to errors (errors.go),
// and the options that ride in metadata (options.go).
package batchapi

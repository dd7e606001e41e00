package cli

import "runtime"

// heapFloor is how much a run may allocate, at least, from one garbage collection to the next.
const heapFloor = 16 << 20

// checkBytes is less than what ingest takes by itself, so that a large input needs little more memory than a small one.
const checkBytes = 16 << 20

// raiseHeapFloor holds a block that counts as alive and is never touched, so that it takes address space and no memory.
// What a run really keeps alive is a few MiB, and each few MiB of answers would start a collection: fifty in a second,
// for a seventh of all CPU time. A higher GOGC would do as well for small items, and multiply the memory of large ones.
func raiseHeapFloor() (release func()) {
	block := make([]byte, heapFloor)
	return func() { runtime.KeepAlive(block) }
}

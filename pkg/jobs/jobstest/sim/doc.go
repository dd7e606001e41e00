// Package sim runs whole jobs through the real ingest, worker, aggregate and sweep on unkind ports, in virtual time, from
// one seed.
//
// All chance is a hash of the seed, the actor and how many steps that actor has taken, never a shared generator; every
// port call first sleeps to an instant that is nobody else's. So one actor acts at a time, and nearly every seed is a
// schedule. Where several attempts wait at one gate and wake at the same instant, the scheduler still decides who comes
// first: such a seed may go another way the next time.
package sim

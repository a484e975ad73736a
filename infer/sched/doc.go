// Package sched decides who may use an engine when, and says no at once to whoever would wait in vain.
//
// A Scheduler puts one bounded queue before an Executor with some workers. Jobs have a Class and a deadline and cost one
// run each. The order is that of arrival, after a head start for the more urgent classes (see HeadStarts), so that no
// class starves. A worker closes a batch when the slack of its most urgent member is spent, when it has the size of the
// best throughput that keeps every deadline, or when nobody is left who could join. How long a batch of a size takes is
// learned from every run (see Curve) and can be kept over a restart.
//
// Promises: Reserve blocks on nothing. It refuses, with the time after which it may be tried again, whom no place is left
// for and who would not make the deadline behind the work ahead; it is an estimate from the curve, and who is admitted may
// still be dropped when its deadline passes or cannot be kept any more: before the run, never instead of an answer. A
// caller that goes away frees its place at once while it waits; once its job runs it is waited for, because the job's
// memory is in use. A worker never waits for a caller. In steady state a job allocates nothing. Every wait, size, time and
// refusal is counted, see Stats. Close refuses what waits, and returns when what runs is done.
//
// A Slot holds what works now, so that it can be exchanged between two jobs. A Batcher is an infer.Engine that merges the
// runs of several pipelines.
//
// A Scheduler owns its workers' goroutines and nothing that the jobs hold. It does not know what a job does, retry,
// or interrupt a run.
package sched

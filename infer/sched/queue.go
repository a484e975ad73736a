package sched

import "time"

// ticket is one job's place, from Reserve to the end of its run. Tickets are reused.
type ticket[J any] struct {
	class    Class
	rank     time.Time // arrival plus the class's head start: the order
	arrived  time.Time
	deadline time.Time     // zero: none
	expected time.Duration // from arrival to the end, as was thought at arrival; 0 unknown
	state    state
	use      uint64 // tells one use of the ticket from the next
	probe    bool   // let in to try the curve: it runs unless its deadline is over
	ran      bool   // Run was called: the ticket goes back when it returns
	job      J
	err      error
	done     chan struct{} // gets one value when the ticket is finished; has room for it
	timer    *time.Timer   // of the deadline
	prev     *ticket[J]
	next     *ticket[J]
}

// state of a ticket.
type state uint8

const (
	free     state = iota
	reserved       // queued, its job is still being prepared
	ready          // queued
	running        // a worker has it
	finished       // err is set, done has its value
)

// line is the queue of one class, in the order of arrival.
type line[J any] struct {
	head, tail *ticket[J]
	n          int
}

func (l *line[J]) push(t *ticket[J]) {
	t.prev, t.next = l.tail, nil
	if l.tail == nil {
		l.head = t
	} else {
		l.tail.next = t
	}
	l.tail = t
	l.n++
}

func (l *line[J]) remove(t *ticket[J]) {
	if t.prev == nil {
		l.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		l.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
	l.n--
}

// scan walks over the ready tickets of all lines in the order of their ranks.
type scan[J any] struct {
	at [Classes]*ticket[J]
}

func (s *Scheduler[J]) scan() (sc scan[J]) {
	for c := range s.queue {
		sc.at[c] = s.queue[c].head
	}
	return sc
}

// next is the next ready ticket, nil at the end. The ticket may be removed from its line before the next call.
func (sc *scan[J]) next() *ticket[J] {
	best := -1
	for c := range sc.at {
		for sc.at[c] != nil && sc.at[c].state != ready {
			sc.at[c] = sc.at[c].next
		}
		if t := sc.at[c]; t != nil && (best < 0 || t.rank.Before(sc.at[best].rank)) {
			best = c
		}
	}
	if best < 0 {
		return nil
	}
	t := sc.at[best]
	sc.at[best] = t.next
	return t
}

// ahead is how many places are served before one of the class that arrives now.
func (s *Scheduler[J]) ahead(c Class, now time.Time) (n int) {
	rank := now.Add(s.o.HeadStart[c])
	for h := range s.queue {
		if Class(h) <= c {
			n += s.queue[h].n
			continue
		}
		for t := s.queue[h].head; t != nil && t.rank.Before(rank); t = t.next {
			n++
		}
	}
	return n
}

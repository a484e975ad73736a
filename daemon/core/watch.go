package core

import "sync"

// watchBuffer is how many decisions a slow watcher may lag behind; then it loses the oldest, which is counted.
const watchBuffer = 256

// watchers hands out durable decisions inside the process. A watcher that is slow loses, it never holds anybody up.
type watchers struct {
	mu     sync.Mutex
	list   map[*Watcher]struct{}
	closed bool
}

// Watcher receives decisions. Lost counts those it was too slow for.
type Watcher struct {
	C    chan Decision
	Lost uint64 // read it after Stop
	all  *watchers
}

// Watch starts to receive decisions. The caller must Stop it; C is closed then, or when the appliance closes.
func (a *Appliance) Watch() *Watcher {
	w := &Watcher{C: make(chan Decision, watchBuffer), all: &a.watchers}
	a.watchers.mu.Lock()
	defer a.watchers.mu.Unlock()
	if a.watchers.closed {
		close(w.C)
		return w
	}
	if a.watchers.list == nil {
		a.watchers.list = map[*Watcher]struct{}{}
	}
	a.watchers.list[w] = struct{}{}
	return w
}

// Stop ends the watch. It may be called twice.
func (w *Watcher) Stop() {
	w.all.mu.Lock()
	defer w.all.mu.Unlock()
	if _, ok := w.all.list[w]; ok {
		delete(w.all.list, w)
		close(w.C)
	}
}

func (ws *watchers) send(d Decision) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.list {
		select {
		case w.C <- d:
			continue
		default:
		}
		select {
		case <-w.C:
			w.Lost++
		default:
		}
		w.C <- d // there is room now: only send fills C, and it holds the lock
	}
}

func (ws *watchers) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.list {
		delete(ws.list, w)
		close(w.C)
	}
	ws.closed = true
}

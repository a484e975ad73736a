// Package fleet is the device's side of central management: one MQTT 3.1.1 link over TLS 1.3 with mutual certificates,
// and the helpers the management side needs to read and command devices.
//
// # What it promises
//
//   - A record of the outbox leaves it only after the broker's PUBACK for exactly that record. Records are published in
//     the order of their ids; after a reconnect the unacknowledged ones come again with the same id, so receivers drop
//     repeats by (tenant, device, origin, class, id). A dead broker only makes the outbox grow.
//   - A command is executed only when it is signed by a known fleet key, addressed to this device, fresh, and known. It is
//     acknowledged to the broker after its answer is durable, so a crash in between brings it again; the Executor
//     answers such a repeat from its ledger. Everything else is refused, counted by reason and reported to Deps.Audit.
//   - Bodies of records are sealed (HPKE) to the management key, bound to tenant, device, origin, class and id. The
//     broker sees topics, ids, classes, sizes and the birth message, and nothing else.
//   - Nothing here blocks its callers: Link.Status never waits, and no method of Link is on a frame's path.
//
// # What it does not promise
//
//   - That a broker forwards what it acknowledged. MQTT 3.1.1 has no negative PUBACK: a Mosquitto whose ACL denies a
//     topic acknowledges the message and drops it. The ACL is therefore part of what provisioning has to prove.
//   - Sender authentication of events beyond the broker: HPKE base mode hides, it does not sign. The broker knows which
//     certificate published; who trusts neither has to compare with the device's own audit chain.
//   - Delivery exactly once: it is at least once, with ids.
//
// # Bounds
//
// In flight: Config.Window records. Incoming: Config.QueueDepth commands; when the queue is full a command is counted and
// left unacknowledged, and the link reconnects once the queue is empty so that the broker delivers it again. Incoming
// packets are bounded before they are parsed. Audit calls and answers to repeats are rate limited. Every wait has a timeout.
//
// # What it relies on in paho.mqtt.golang v1.5.1
//
// AutoReconnect and ConnectRetry are off and each connection has its own client, because a reconnecting client completes
// tokens of messages that were never acknowledged. Then:
//
//   - Publish with QoS 1 assigns the message id and calls Store.Put("o.<id>", packet) in the caller's goroutine before
//     the packet is handed to the writer. With one publishing goroutine, Put can tie a message id to a record.
//   - Store.Del("o.<id>") is called by the reader for PUBACK (and SUBACK, UNSUBACK, PUBCOMP) before the token completes
//     and before the id can be used again. It is the delivery signal; tokens of records are never waited for.
//   - Nothing is sent between Connect's token and our first Publish: our Store is empty, so there is nothing to resume.
//   - The goroutines of a client have ended when OnConnectionLost runs (a lost connection) or when Store.Close is called
//     (after Disconnect or a failed Connect).
//   - A message handler runs in the router's goroutine and must not block; with manual acknowledgement Message.Ack may be
//     called later from another goroutine, and is dropped when the connection is gone.
//   - A SUBACK with more return codes than topics panics in paho, and a packet length is allocated before it is read;
//     the guard on the connection refuses both before paho sees them.
//
// # Owners
//
// Run owns the connection, its goroutines and the command worker; when it returns all of them have ended. The TLS key is
// a crypto.Signer that the caller owns. The package keeps no state on disk.
package fleet

package jobs

import "context"

// passPing sends a ping on to the next queue, if there is one, and tells that it came through this one.
func (p *Ports) passPing(ctx context.Context, d Message, m *PingMessage, from, to QueueName) error {
	now, on := p.Now(), *m
	if on.Sent.IsZero() {
		on.Sent = d.Sent
	}
	if on.Sent.IsZero() {
		on.Sent = now
	}
	if to != "" {
		if err := send(ctx, p.Queue, to, PingBody(on.Sent)); err != nil {
			return err
		}
	}
	if p.Watch.Pinged != nil {
		p.Watch.Pinged(from, max(0, now.Sub(on.Sent))) // clocks may differ
	}
	return nil
}

// noQueue ends a ping's way.
const noQueue = QueueName("")

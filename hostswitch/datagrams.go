// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package hostswitch

// datagrams are some of one flow, one behind the other in one piece of memory.
type datagrams struct {
	bytes []byte
	ends  []int // of each, in bytes
	room  int   // for both, in bytes
}

func (d *datagrams) size() int { return len(d.bytes) + 8*len(d.ends) }

func (d *datagrams) add(b []byte) {
	d.bytes = append(d.bytes, b...)
	d.ends = append(d.ends, len(d.bytes))
}

// row returns how many datagrams from the i-th on, which begins at start, are as long
// as it is, but for the last, which may be shorter: limit at most.
func (d *datagrams) row(i, start, limit int) (n int) {
	size := d.ends[i] - start
	for n = 1; n < limit && i+n < len(d.ends); n++ {
		switch next := d.ends[i+n] - d.ends[i+n-1]; {
		case 0 < next && next < size:
			return n + 1
		case next != size:
			return n
		}
	}
	return n
}

// A batchConn is a flowConn that moves many datagrams at a time.
type batchConn interface {
	flowConn
	// send writes datagrams; failed is told of each that was not taken.
	send(d *datagrams, failed func(error))
	// receive waits for datagrams and has take handle them, which must neither keep
	// them nor wait for anybody.
	receive(take func([][]byte)) error
}

// singles moves one datagram at a time.
type singles struct {
	flowConn
	buf []byte
	one [1][]byte
}

func newSingles(c flowConn) *singles { return &singles{flowConn: c, buf: make([]byte, 64<<10)} }

func (c *singles) send(d *datagrams, failed func(error)) {
	start := 0
	for _, end := range d.ends {
		if _, err := c.Write(d.bytes[start:end]); err != nil {
			failed(err)
		}
		start = end
	}
}

func (c *singles) receive(take func([][]byte)) error {
	n, err := c.Read(c.buf)
	if err == nil {
		c.one[0] = c.buf[:n]
		take(c.one[:])
	}
	return err
}

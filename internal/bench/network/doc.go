// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Command network measures the virtual network side by side with what a user would
// run instead: gvproxy with gvforwarder, slirp4netns, pasta, and, as the end of the
// scale, the kernel's loopback with no network in user space. They alternate in one
// run:
//
//	make bench-setup bench-network
//
// It needs Linux and root, and takes half an hour; make bench-quick takes a minute.
// The host's programs, the guests and a container behind a guest are in network
// namespaces of their own, all traffic stays in them, and they are gone at the end.
//
// It prints one table: medians, and their ratios to gvproxy's. Only these mean
// something on a machine that others use too.
//
//   - Rates are what the receiver got, of one TCP connection or of four, between the
//     guest and the loopback of the host; up is from the guest.
//   - The container is behind a veth pair of MTU 1500 and the guest's masquerading.
//     What it retransmits, some multiples of a super-frame's 45 segments, was not lost,
//     but overtaken. The kernel queues on a veth pair per CPU, and a connection's segments
//     are sent from the sender's and from the one on which an acknowledgement comes in:
//     they leave the container in order and reach the guest's tap with one super-frame
//     behind the next two, 10 in a second. With the sender and the guest's relay on one
//     CPU none is, and nothing is sent again.
//   - CPU is user and system time of the host's process and of the guest's relay, for
//     each Gbit that the receiver got.
//   - UDP is offered at 100, 200, 300 and 400 thousand packets per second: the most that
//     arrived of any counts, and what is lost of the first.
//   - 1 byte is the round trip on an open TCP connection; a connection is opened,
//     answers one byte, and is closed.
//   - Memory is that of the host's process: what is its own when the guest has its
//     lease, and the most that was resident during four connections and at all.
//   - Of two guests at once the slower one's share of the faster one's rate is taken,
//     and what one has of its rate alone while the other, in the middle of a download,
//     is stopped with SIGSTOP.
package main

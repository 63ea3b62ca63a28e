// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package vmtest runs the two ends of this module over real AF_VSOCK, in Linux
// machines that QEMU emulates. It needs neither root nor KVM, but QEMU, and apt-get
// for the kernel: Debian's cloud kernel, unpacked below the user's cache folder
// and not installed.
//
// What runs where:
//
//   - host and guest, built with the tag vmtest, are test programs: the host's
//     end and the guest's, with the packages that a user imports. They run inside
//     of machines only, and keep step by what they say to each other (talk). The
//     guest's agent is its program once more, so that it can be killed. Tests of
//     other packages that need AF_VSOCK have the same tag, and run here too.
//   - [Run] runs both in one machine, over vsock_loopback: each is CID 1 to the
//     other.
//   - [RunPair] runs the host's end in an outer machine and the guest's in an inner
//     one, which the outer's QEMU runs with vhost-vsock: they are CID 2 and CID 42.
//   - init is the first process of a machine. There is nothing else in one, no
//     shell and no libraries, but for QEMU in the outer machine.
//
// What is real: the kernel with its vsock, tap and namespaces, and for a pair the
// vhost and virtio drivers that carry a guest's bytes. What is not: speed. An
// emulated machine in an emulated machine is hundreds of times slower than a
// real one, so nothing may be measured there, and every timeout has to be far off.
package vmtest

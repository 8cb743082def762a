package main

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// socketInode returns the inode of the socket at this end of a connection over IPv4
// on loopback, "" if there is none (proc_net_tcp in the kernel's documentation).
func socketInode(local, remote net.Addr) string {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	const localField, remoteField, inodeField = 1, 2, 9
	from, to := kernelAddress(local), kernelAddress(remote)
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > inodeField && fields[localField] == from && fields[remoteField] == to {
			return fields[inodeField]
		}
	}
	return ""
}

// kernelAddress writes an IPv4 address as /proc/net/tcp does on a little-endian
// machine.
func kernelAddress(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil {
		return ""
	}
	ip := tcp.IP.To4()
	return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], tcp.Port)
}

/* What every step sees of a received frame: bytes, length and offload metadata. Never a ring's
 * header, so that another kind of ring fits under the steps. */
#ifndef LBFWD_FRAME_H
#define LBFWD_FRAME_H

#include <linux/if_packet.h>
#include <linux/virtio_net.h>

#include "_bytes.h"

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5 /* kernel headers before 6.2 do not name it */
#endif

/* struct virtio_net_hdr without its mergeable-buffers tail: what PACKET_VNET_HDR puts in front. */
#define VNET_BYTES 10

struct lbfwd_frame {
    const uint8_t *data;     /* from the Ethernet header on */
    uint32_t length;         /* bytes in memory */
    uint32_t wire_length;    /* bytes the frame had: more, when the ring cut it */
    uint8_t packet_type;     /* PACKET_HOST, PACKET_OTHERHOST, … */
    uint8_t vlan_tagged;
    uint8_t rx;              /* ring it came from: answers go back there */
    struct virtio_net_hdr offload;
};

/* A frame to this host in memory: VNET_BYTES of offload metadata, then the frame. */
static inline struct lbfwd_frame frame_in_memory(const uint8_t *bytes, uint32_t length)
{
    struct lbfwd_frame frame = {.data = bytes + VNET_BYTES, .length = length - VNET_BYTES,
                                .wire_length = length - VNET_BYTES, .packet_type = PACKET_HOST};

    memcpy(&frame.offload, bytes, VNET_BYTES);
    return frame;
}

#endif

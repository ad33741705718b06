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
    struct virtio_net_hdr offload;
    uint8_t rx;              /* ring it came from: answers go back there */
    uint8_t from_peer;       /* another node of the fleet has handed it over, and was unwrapped */
};

/* What may be unusual about a frame lies side by side, from its type to its gso_type, and is looked at
 * as one word. */
#define MARK_OFFLOAD_FLAG(flag) ((uint32_t)(flag) << 16)
#define MARK_GSO_TYPE 0xff000000u

#define MARK_AT(field) (offsetof(struct lbfwd_frame, field) - offsetof(struct lbfwd_frame, packet_type))
_Static_assert(MARK_AT(vlan_tagged) == 1 && MARK_AT(offload.flags) == 2 &&
               MARK_AT(offload.gso_type) == 3, "side by side");

static inline uint32_t marks_of(const struct lbfwd_frame *frame)
{
    return load_u32(&frame->packet_type);
}

/* A frame to this host in memory: VNET_BYTES of offload metadata, then the frame. */
static inline struct lbfwd_frame frame_in_memory(const uint8_t *bytes, uint32_t length)
{
    struct lbfwd_frame frame = {.data = bytes + VNET_BYTES, .length = length - VNET_BYTES,
                                .wire_length = length - VNET_BYTES, .packet_type = PACKET_HOST};

    memcpy(&frame.offload, bytes, VNET_BYTES);
    return frame;
}

#endif

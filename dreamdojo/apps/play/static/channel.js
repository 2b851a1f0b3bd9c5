// A WebRTC data channel for frames: offered to the server over the WebSocket, and left alone if nothing comes of it.

export class FrameChannel {
  #connection = new RTCPeerConnection({ iceServers: [] });

  // on: { offer(sdp), frame(buffer) }
  constructor(on) {
    const channel = this.#connection.createDataChannel("frames", { ordered: false, maxRetransmits: 0 });
    channel.binaryType = "arraybuffer";
    channel.onmessage = ({ data }) => on.frame(data);
    this.#connection.onicegatheringstatechange = () => {
      if (this.#connection.iceGatheringState === "complete") on.offer(this.#connection.localDescription.sdp);
    };
    this.#connection.setLocalDescription();
  }

  answer(sdp) {
    return this.#connection.setRemoteDescription({ type: "answer", sdp });
  }

  close() {
    this.#connection.close();
  }
}

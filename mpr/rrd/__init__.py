"""The file format `.rrd`: frames, manifests, writing, repairing and relabelling. mpr itself never decodes a chunk.

Covers: the bytes of a stream, from one frame to a finished file.
Does not cover: the source of the bytes (`aggregator`) and the choice of a file for them (`sinks`).
May import: sdk.

These words have the same meaning in all modules:

- Stream: a header, and then frames. A frame is a small header and a payload. A finished file is a stream with a footer.
- Chunk (a word of Rerun): rows of one entity, as Arrow columns. Each chunk has a frame of its own.
- Store: a recording or a blueprint. Its store id has the application id, the recording id, and the kind. Its store info
  is the frame that introduces the store.
- Manifest: a table of the chunks of one store, with their offsets and sizes. To describe a chunk is to make its row.
- Footer: the manifests of a file, one for each store. The footer is the payload of the last frame, of the kind `END`.
- To encode a row: to write it in the form of this format, as bytes. To decode it: to read its values from the bytes.
- Outbox: a file in memory, into which a process that logs writes its encoded rows. The parent reads the rows there.
- Segment: some whole frames of one outbox, in the form in which a sink gets them.
- Run: bytes that lie one behind the other in a file or an outbox, without a gap.
- Preamble: the stream with which a file begins: the store info and the properties of the recording.
- Relabel: to replace the store id in a stream, and the offsets and sizes that change by this.
"""

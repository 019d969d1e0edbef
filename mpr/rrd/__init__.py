"""Reads, writes, repairs and relabels streams and files in Rerun's format `.rrd`.

Covers: the bytes of a stream, from one frame to a finished file.
Does not cover: the source of the bytes (`aggregator`), the choice of a file for them (`sinks`), and the values in a
chunk, which only the SDK decodes.
May import: sdk.

```
rows of an outbox ───► Segment ───► FileWriter.accept ──► frames of the file ──► ByteLog ──► readers
footer of the outbox ─► ManifestStore ─► ManifestMaker ──► footer of the file
file of a killed process ──► survey ──► recover ──► valid file
```

These words have the same meaning in all modules:

- Producer: a process that logs. Its outbox is a file in memory, into which it writes its encoded rows. The parent reads
  the rows there.
- Stream: a header of 12 bytes, and then frames. A finished file is a stream with a footer, except with
  `FileSink(write_footer=False)`.
- Frame: a header of 16 bytes, which has the kind and the size of the payload, and then the payload. A frame is whole if
  all its bytes are there.
- Message: a frame of another kind than `END`. In `protobuf.py` a message is a protobuf message, and in `segment.py` it
  is one that a producer has sent.
- Chunk (a word of Rerun): rows of one entity, as Arrow columns. Each chunk has a frame of its own, of the kind
  `ARROW_MSG`. The place of a chunk is the offset of its frame and the size of its payload, in bytes.
- Static row (a word of Rerun): a row without times.
- Store: a recording or a blueprint. Its store id has the application id, the recording id, and the kind. An encoded
  store id is the store id as bytes. Its store info is the frame that introduces the store, of the kind
  `SET_STORE_INFO`.
- Manifest: a table of the chunks of one store, with their offsets and sizes. To describe a chunk is to make its row in
  this table.
- Footer: the manifests of a stream, one for each store. They are the payload of the last frame, of the kind `END`.
- To encode a row: to write it as bytes of this format. To decode it: to read its values from the bytes.
- Segment: some whole frames of one outbox, or of a stream that the parent has made, in the form in which a sink gets
  them.
- Run: a range of bytes without a gap, in a file or an outbox.
- Preamble: the stream with which a file begins: the store info and the properties of the recording.
- Relabel: to replace the store id in a stream, and to correct the offsets and sizes in its manifests.
- To write a file anew: to have the SDK read the file and write another one, which replaces it. A compact file is a file
  that `rerun rrd optimize` has written anew, with small chunks merged.
"""

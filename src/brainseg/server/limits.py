"""The limits of one request and of all requests together: bytes, parts, seconds, slices. Numbers only, with reasons."""

MAX_BODY = 96 * 2**20  # bytes: three uncompressed 16-bit series of 60 slices of 512 x 512 pixels
MAX_BODIES = 2 * MAX_BODY  # of all requests together, since uploads are held in memory
MAX_PARTS = 1024  # files in one upload, as of one DICOM series
MAX_SLICES = 512  # in one answer
MAX_WAITING = 64  # requests in the queue; slices, of which 25 are done in a second, wait less than 3 s there
MAX_WAIT_SECONDS = 60.0  # in the queue, by the time that the latest requests took: of volumes fewer wait
AT_ONCE = 2  # requests in work at the same time; the model itself takes one at a time
RETRY_AFTER = 30.0  # seconds that a refused client is told to wait at most

MEMORY = 256 * 2**20  # bytes that decoding one file may use, on top of the libraries
DECODE_SECONDS = 1.8  # time limit for a tiny file; decompression bombs are small
DECODE_RATE = 2**20  # each such number of bytes adds a second; JPEG 2000 is decoded three times as fast
JOB_SECONDS = 120.0  # from the end of the upload to its answer, including the queue

SILENT_SECONDS = 12.0  # an upload may be silent or slow for this long
SLOWEST = 32 * 2**10  # bytes a second; a slower upload uses up SILENT_SECONDS, a faster one restores it
HEADER_SECONDS = 12.0  # for a complete request header, or until a client reads more of its answer
DRAIN_SECONDS = 8  # for unfinished requests when the server is told to stop

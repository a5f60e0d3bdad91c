"""What one request, and all of them together, may take: bytes, parts, seconds, slices. Numbers alone, with reasons."""

MAX_BODY = 96 * 2**20  # bytes: three uncompressed 16-bit series of 60 slices of 512 x 512 pixels
MAX_BODIES = 2 * MAX_BODY  # of all requests together, since uploads are held in memory
MAX_PARTS = 1024  # files of one DICOM series
MAX_SLICES = 512  # of one answer
MAX_WAITING = 16  # requests that wait for their turn; at 15 a second the last one waits a second
AT_ONCE = 2  # requests decoded, segmented and encoded side by side; the model itself takes one at a time
RETRY_AFTER = 2  # seconds that a client is told to wait

MEMORY = 256 * 2**20  # bytes above what the libraries take that the decoding of one file may use
DECODE_SECONDS = 1.8  # for a file of no size; a bomb is small
DECODE_RATE = 4 * 2**20  # bytes of upload for each further second: a slow processor inflates four times as many
JOB_SECONDS = 120.0  # from the whole upload to its answer, waiting included

SILENT_SECONDS = 12.0  # an upload may stay silent, or be slow, for so long
SLOWEST = 32 * 2**10  # bytes a second below which an upload uses that up, and above which it earns it back
HEADER_SECONDS = 12.0  # until a connection's next request has a whole header, or a client takes more of its answer
DRAIN_SECONDS = 8  # for what is in flight when the server is told to stop

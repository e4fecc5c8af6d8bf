import java.util.Locale;
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;
import net.openhft.chronicle.queue.ExcerptTailer;

/**
 * Chronicle Queue in this process: appends and reads. It has no synced append in its open edition:
 * "sync" asks the appender to sync after each batch, which starts writing back and does not wait.
 */
final class ChronicleLoad {
    public static void main(String[] words) throws Exception {
        String path = words[0];
        int batch = Integer.parseInt(words[1]);
        int size = Integer.parseInt(words[2]);
        double seconds = Double.parseDouble(words[3]);
        boolean sync = words[4].equals("sync");
        Bytes<?> body = Bytes.allocateElasticDirect(size);
        for (int at = 0; at < size; at++) {
            body.writeByte((byte) 'x');
        }
        long sent = 0;
        long began;
        double took;
        try (ChronicleQueue queue = ChronicleQueue.single(path);
             ExcerptAppender appender = queue.createAppender()) {
            began = System.nanoTime();
            long end = began + (long) (seconds * 1e9);
            while (System.nanoTime() < end) {
                for (int at = 0; at < batch; at++) {
                    appender.writeBytes(body);
                    body.readPosition(0);
                }
                if (sync) {
                    appender.sync();
                }
                sent += batch;
            }
            took = (System.nanoTime() - began) / 1e9;
        }
        long read = 0;
        double reading;
        try (ChronicleQueue queue = ChronicleQueue.single(path);
             ExcerptTailer tailer = queue.createTailer()) {
            Bytes<?> taken = Bytes.allocateElasticDirect(size);
            long start = System.nanoTime();
            while (tailer.readBytes(taken)) {
                if (taken.readRemaining() != size) {
                    throw new IllegalStateException("a body has " + taken.readRemaining());
                }
                taken.clear();
                read++;
            }
            reading = (System.nanoTime() - start) / 1e9;
        }
        System.out.printf(Locale.ROOT, "{\"rate\": %.1f, \"messages\": %d, \"seconds\": %.3f,"
            + " \"read_rate\": %.1f, \"errors\": %d}%n", sent / took, sent, took, read / reading,
            sent - read);
        System.exit(0);
    }
}

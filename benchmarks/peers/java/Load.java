import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Sends to a queue and receives from it, for servers whose good clients are Java's. The words are
 * those of the Go loader: work producers consumers batch size seconds warmUp count window rate.
 */
final class Load {
    interface Producer {
        /** Returns when every body was acknowledged. */
        void send(List<byte[]> bodies) throws Exception;
    }

    interface Consumer {
        /** Receives, confirms each as one message, and returns the bodies; none after a moment. */
        List<byte[]> take(int count) throws Exception;
    }

    interface Driver {
        Producer producer(int number) throws Exception;

        Consumer consumer(int number) throws Exception;
    }

    private final Driver driver;
    private final String work;
    private final int batch;
    private final int size;
    private final long count;
    private final long window;
    private final double rate;
    private final long began = System.nanoTime();
    private final long warm;
    private final long length;
    /** What is measured begins this long after the first answer, or, of "both", after the first
     *  message came through; 0: not yet known. */
    private final AtomicLong begin = new AtomicLong();
    private final AtomicLong sent = new AtomicLong();
    private final AtomicLong received = new AtomicLong();
    private final AtomicLong errors = new AtomicLong();
    private final AtomicLong first = new AtomicLong();
    private final AtomicLong last = new AtomicLong();
    private final List<long[]> found = new ArrayList<>();
    private double done;

    private Load(Driver driver, String[] words) {
        this.driver = driver;
        work = words[0];
        batch = Integer.parseInt(words[3]);
        size = Math.max(16, Integer.parseInt(words[4]));
        count = Long.parseLong(words[7]);
        window = work.equals("both") ? Long.parseLong(words[8]) : 0;
        rate = Double.parseDouble(words[9]);
        warm = count > 0 ? 0 : (long) (Double.parseDouble(words[6]) * 1e9);
        length = (long) (Double.parseDouble(words[5]) * 1e9);
        if (work.equals("receive") || count > 0) {
            start();
        }
    }

    private void start() {
        begin.compareAndSet(0, System.nanoTime() + warm);
    }

    /** Whether the span has ended, or never began. */
    private boolean over(long now) {
        long from = begin.get();
        return from == 0 ? now - began > 60_000_000_000L : now > from + length;
    }

    /** Which part of a request lay in what is measured: a long one counts for what it did there. */
    private double share(long asked, long answered) {
        long from = begin.get();
        long both = Math.min(answered, from + length) - Math.max(asked, from);
        return from == 0 || both <= 0 ? 0 : (double) both / (answered - asked);
    }

    static void run(Driver driver, String[] words) throws Exception {
        Load load = new Load(driver, words);
        List<Thread> threads = new ArrayList<>();
        int producers = load.work.equals("receive") ? 0 : Integer.parseInt(words[1]);
        int consumers = load.work.equals("send") ? 0 : Integer.parseInt(words[2]);
        for (int at = 0; at < producers; at++) {
            int number = at;
            threads.add(new Thread(() -> load.guarded(() -> load.produce(number, producers))));
        }
        for (int at = 0; at < consumers; at++) {
            int number = at;
            threads.add(new Thread(() -> load.guarded(() -> load.consume(number))));
        }
        for (Thread thread : threads) {
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        load.tell();
        System.exit(load.errors.get() > 0 ? 1 : 0);
    }

    private interface Part {
        void run() throws Exception;
    }

    private void guarded(Part part) {
        try {
            part.run();
        } catch (Exception error) {
            errors.incrementAndGet();
            System.err.println(error);
        }
    }

    private void produce(int number, int producers) throws Exception {
        Producer link = driver.producer(number);
        // Until a first message has come through there is only a trickle: what piled up while the
        // server got to know its consumers would be in every latency after it.
        while (window > 0 && begin.get() == 0 && !over(System.nanoTime())) {
            if (number == 0) {
                link.send(List.of(stamped(size, System.nanoTime())));
            }
            Thread.sleep(100);
        }
        long interval = rate > 0 ? (long) (batch * producers / rate * 1e9) : 0;
        long due = System.nanoTime() + interval * number / producers;
        Latencies mine = new Latencies();
        double messages = 0;
        while (true) {
            long now = System.nanoTime();
            if (interval > 0) {
                long wait = due - now;
                if (wait > 0) {
                    Thread.sleep(wait / 1_000_000, (int) (wait % 1_000_000));
                }
                now = due;
                due += interval;
            }
            if (over(System.nanoTime()) || count > 0 && sent.get() >= count) {
                break;
            }
            while (window > 0 && sent.get() - received.get() > window && !over(System.nanoTime())) {
                Thread.sleep(0, 50_000);
                now = interval > 0 ? now : System.nanoTime();
            }
            List<byte[]> bodies = new ArrayList<>(batch);
            for (int at = 0; at < batch; at++) {
                bodies.add(stamped(size, now));
            }
            long asked = System.nanoTime();
            link.send(bodies);
            sent.addAndGet(batch);
            if (window == 0) {
                start();
                long answered = System.nanoTime();
                double share = share(asked, answered);
                messages += share * batch;
                if (share > 0) {
                    mine.add(answered - now);
                }
            }
        }
        keep(mine, messages);
    }

    private void consume(int number) throws Exception {
        Consumer link = driver.consumer(number);
        Latencies mine = new Latencies();
        long idle = System.nanoTime();
        long before = idle;
        double messages = 0;
        while (true) {
            List<byte[]> bodies = link.take(batch);
            long now = System.nanoTime();
            if (!bodies.isEmpty()) {
                idle = now;
                first.compareAndSet(0, now);
                last.set(now);
            }
            int own = 0;
            for (byte[] body : bodies) {
                // What an earlier run left is cleared away, but it is not this run's.
                if (due(body) < began && count == 0) {
                    continue;
                }
                own++;
                received.incrementAndGet();
                start();
                if (share(before, now) > 0 && count == 0) {
                    mine.add(now - due(body));
                }
            }
            messages += share(before, now) * own;
            before = now;
            if (over(now) || count > 0 && (received.get() >= count || now - idle > 10_000_000_000L)) {
                break;
            }
        }
        keep(mine, messages);
    }

    private static byte[] stamped(int size, long now) {
        byte[] body = new byte[size];
        Arrays.fill(body, (byte) 'x');
        for (int at = 0; at < 16; at++) {
            body[at] = (byte) ('a' + (now >>> (60 - 4 * at) & 15));
        }
        return body;
    }

    private static long due(byte[] body) {
        long value = 0;
        for (int at = 0; at < 16; at++) {
            value = value << 4 | (body[at] - 'a');
        }
        return value;
    }

    private synchronized void keep(Latencies mine, double messages) {
        found.add(mine.taken());
        done += messages;
    }

    private void tell() {
        long[] all = found.stream().flatMapToLong(Arrays::stream).sorted().toArray();
        double seconds = length / 1e9;
        double messages = done;
        if (count > 0) {
            boolean receiving = work.equals("receive");
            seconds = ((receiving ? last.get() - first.get() : System.nanoTime() - began)) / 1e9;
            messages = receiving ? received.get() : sent.get();
        }
        StringBuilder told = new StringBuilder(String.format(Locale.ROOT,
            "{\"rate\": %.1f, \"messages\": %.0f, \"seconds\": %.3f, \"acknowledged\": %d, \"errors\": %d",
            messages / seconds, messages, seconds,
            work.equals("receive") ? received.get() : sent.get(), errors.get()));
        String[] names = {"p50_us", "p90_us", "p99_us", "p999_us", "max_us"};
        double[] shares = {.5, .9, .99, .999, 1};
        for (int at = 0; at < names.length && all.length > 0; at++) {
            told.append(String.format(Locale.ROOT, ", \"%s\": %.1f", names[at],
                all[(int) (shares[at] * (all.length - 1))] / 1e3));
        }
        System.out.println(told.append("}"));
    }

    /** Latencies that grow without boxing them. */
    private static final class Latencies {
        private long[] kept = new long[1 << 16];
        private int filled;

        void add(long value) {
            if (filled == kept.length) {
                kept = Arrays.copyOf(kept, 2 * filled);
            }
            kept[filled++] = value;
        }

        long[] taken() {
            return Arrays.copyOf(kept, filled);
        }
    }
}

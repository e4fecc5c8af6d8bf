import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.AcknowledgeType;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaShareConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka as a queue: acks=all, and a share group that acknowledges each record. The threads of
 * "send" share one producer, as Kafka advises; it puts what they send at one time into one request.
 */
final class KafkaLoad implements Load.Driver {
    private final String address;
    private final String topic;
    private final KafkaProducer<byte[], byte[]> shared;

    private KafkaLoad(String address, String topic) {
        this.address = address;
        this.topic = topic;
        Properties words = new Properties();
        words.put("bootstrap.servers", address);
        words.put("acks", "all");
        words.put("linger.ms", "0");
        words.put("batch.size", "262144");
        shared = new KafkaProducer<>(words, new ByteArraySerializer(), new ByteArraySerializer());
    }

    public static void main(String[] words) throws Exception {
        KafkaLoad driver = new KafkaLoad(words[0], words[1]);
        Load.run(driver, Arrays.copyOfRange(words, 2, words.length));
    }

    @Override
    public Load.Producer producer(int number) {
        return bodies -> {
            List<Future<RecordMetadata>> waiting = new ArrayList<>(bodies.size());
            for (byte[] body : bodies) {
                waiting.add(shared.send(new ProducerRecord<>(topic, body)));
            }
            for (Future<RecordMetadata> one : waiting) {
                one.get();
            }
        };
    }

    @Override
    public Load.Consumer consumer(int number) {
        Properties words = new Properties();
        words.put("bootstrap.servers", address);
        words.put("group.id", "share-" + topic);
        words.put("share.acknowledgement.mode", "explicit");
        words.put("max.poll.records", "500");
        KafkaShareConsumer<byte[], byte[]> consumer = new KafkaShareConsumer<>(
            words, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic));
        return count -> {
            List<byte[]> bodies = new ArrayList<>();
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                bodies.add(record.value());
            }
            if (!bodies.isEmpty()) {
                consumer.commitSync();
            }
            return bodies;
        };
    }
}
